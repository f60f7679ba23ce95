// An authorization server nobody here wrote, with rotation and reuse detection on and a log of every refresh token shown to it.
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { Provider } from 'oidc-provider';

const env = process.env;
const latency = Number(env.OIDC_STORE_LATENCY_MS ?? 0);
const lifetime = Number(env.OIDC_ACCESS_TOKEN_SECONDS ?? 3600);
const days = 24 * 3600;

// The library's own store is an LRU that forgets refresh tokens after some thousand others; this one forgets nothing.
// With latency its steps interleave, so that, as with many real servers, two uses of one token can both succeed.
const store = new Map();
class Adapter {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) { await pause(); store.set(this.key(id), { ...payload }); }
  async find(id) { await pause(); const found = store.get(this.key(id)); return found && { ...found }; }
  async findByUid(uid) { return this.first((payload) => payload.uid === uid); }
  async findByUserCode(code) { return this.first((payload) => payload.userCode === code); }
  async first(matches) {
    await pause();
    for (const [key, payload] of store) if (key.startsWith(`${this.model}:`) && matches(payload)) return { ...payload };
    return undefined;
  }
  async consume(id) { await pause(); store.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { await pause(); store.delete(this.key(id)); }
  async revokeByGrantId(grant) {
    await pause();
    for (const [key, payload] of store) if (payload.grantId === grant) store.delete(key);
  }
}
async function pause() { if (latency) await sleep(latency); }

const log = [];
const fingerprint = (token) => token && createHash('sha256').update(token).digest('hex');

async function record(ctx, next) {
  const at = Date.now() / 1000;
  try {
    await next();
  } finally {
    const params = ctx.oidc?.params ?? {};
    const kind = { '/token': 'refresh', '/token/revocation': 'revocation' }[ctx.path];
    const shown = kind === 'refresh' ? params.refresh_token : params.token;
    if (kind && shown) {
      log.push({
        kind, at, fingerprint: fingerprint(shown), status: ctx.status, outcome: ctx.body?.error ?? 'ok',
        issued: fingerprint(ctx.body?.refresh_token) ?? null,
      });
    }
  }
}

function provider(issuer) {
  const made = new Provider(issuer, {
    adapter: Adapter,
    clients: [{
      client_id: env.OIDC_CLIENT_ID,
      // A client that signs has its public keys registered, and no secret.
      ...(env.OIDC_CLIENT_JWKS ? { jwks: JSON.parse(env.OIDC_CLIENT_JWKS) } : { client_secret: env.OIDC_CLIENT_SECRET }),
      redirect_uris: env.OIDC_REDIRECT_URI.split(' '),
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
      token_endpoint_auth_method: env.OIDC_CLIENT_AUTH ?? 'client_secret_basic',
    }],
    cookies: { keys: [randomBytes(16).toString('hex')] },
    features: {
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
    // OpenID Connect wants prompt=consent for offline_access; the upstreams we talk to hand out a refresh token anyway.
    issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
    pkce: { required: () => true },
    rotateRefreshToken: true,
    scopes: ['openid', 'offline_access', 'api', 'email', 'groups'],
    // Whoever signs in as `ada` has a verified address and is in the group of that name; `ada-x` is in it too.
    claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.test`, email_verified: !id.includes('unverified'), groups: [id.split('-')[0]] }),
    }),
    ttl: {
      AccessToken: lifetime, AuthorizationCode: 60, ClientCredentials: lifetime, Grant: 30 * days, IdToken: lifetime,
      Interaction: 600, RefreshToken: 14 * days, Session: 30 * days,
    },
  });
  made.use(record);
  return made.callback();
}

let answer;
const server = createServer((request, response) => {
  if (request.url !== '/_log') return answer(request, response);
  response.setHeader('content-type', 'application/json');
  return response.end(JSON.stringify(log));
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => {
  const issuer = env.OIDC_ISSUER ?? `http://127.0.0.1:${server.address().port}`;
  answer = provider(issuer);
  process.stdout.write(`${JSON.stringify({ port: server.address().port, issuer })}\n`);
});
process.stdin.on('end', () => process.exit(0)).resume(); // whoever started us is gone
