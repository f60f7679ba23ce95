// Verifies capability tokens as docs/capabilities.md tells it to: issuer and audience as arguments, and a line of JSON for
// each token and the request that came with it, or for a request whose hash is wanted. `at` sets the clock, in seconds.
import { createHash } from "node:crypto"
import { createInterface } from "node:readline"
import { createRemoteJWKSet, jwtVerify } from "jose"

const [issuer, audience] = process.argv.slice(2)
const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json()
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri), { cacheMaxAge: 300_000 })
const clock = Date.now
let at
globalThis.Date = class extends Date {
  constructor(...given) {
    super(...(given.length > 0 ? given : [Date.now()]))
  }
  static now() {
    return at === undefined ? clock() : at * 1000
  }
}

function requestHash(method, target, body) {
  return createHash("sha256").update(`${method} ${target}\n`).update(body).digest("hex")
}

function millionths(amount) {
  const [, whole, part = ""] = /^([0-9]{1,15})(?:\.([0-9]{1,6}))?$/.exec(amount)
  return BigInt(whole + part.padEnd(6, "0"))
}

function whyNot(claims, request) {
  const details = claims.authorization_details
  if (typeof claims.aud !== "string") return "audience"
  if (!(claims.exp - claims.iat <= 180)) return "lifetime"
  if (claims.request_sha256 !== requestHash(request.method, request.target, request.body)) return "request"
  if (!Array.isArray(details) || details.length !== 1) return "details"
  const { type, locations, actions, identifier, limit } = details[0]
  if (type !== "aswhom_action" || String(locations) !== audience || actions?.length !== 1) return "details"
  if (claims.tenant !== request.tenant) return "tenant"
  if (actions[0] !== request.action) return "action"
  if (identifier !== request.resource) return "resource"
  if (request.amount === undefined) return null
  if (!limit || millionths(request.amount) > millionths(limit.amount)) return "amount"
  return limit.currency === request.currency ? null : "currency"
}

async function verify(token, request) {
  const { payload, protectedHeader } = await jwtVerify(token, keys, {
    issuer,
    audience,
    typ: "cap+jwt",
    algorithms: ["Ed25519", "ES256"],
    requiredClaims: ["iat", "exp", "nbf", "jti", "request_sha256"],
    clockTolerance: 5,
  })
  const why = whyNot(payload, request)
  if (why !== null) throw Object.assign(new Error(why), { code: why })
  return { payload, protectedHeader }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { token, request, ...set } = JSON.parse(line)
  at = set.at
  try {
    if (token === undefined) {
      console.log(JSON.stringify({ hash: requestHash(request.method, request.target, request.body) }))
      continue
    }
    const { payload, protectedHeader } = await verify(token, request)
    console.log(JSON.stringify({ alg: protectedHeader.alg, payload }))
  } catch (error) {
    console.log(JSON.stringify({ refused: error.claim ? `${error.code} ${error.claim}` : error.code }))
  }
}
