// Verifies capability tokens as docs/capabilities.md tells it to: issuer and audience as arguments, a token a line.
import { createInterface } from "node:readline"
import { createRemoteJWKSet, jwtVerify } from "jose"

const [issuer, audience] = process.argv.slice(2)
const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json()
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri))

for await (const token of createInterface({ input: process.stdin })) {
  try {
    const { payload, protectedHeader } = await jwtVerify(token, keys, {
      issuer,
      audience,
      typ: "cap+jwt",
      algorithms: ["Ed25519", "ES256"],
      requiredClaims: ["exp", "nbf", "jti", "request_sha256"],
      clockTolerance: 5,
    })
    console.log(JSON.stringify({ alg: protectedHeader.alg, payload }))
  } catch (error) {
    console.log(JSON.stringify({ refused: error.code }))
  }
}
