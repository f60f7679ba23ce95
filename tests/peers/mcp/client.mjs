// Speaks with an MCP server by the protocol's own client: address and key as arguments, a call a line, an answer a line.
import { createInterface } from "node:readline"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"

const [address, key] = process.argv.slice(2)
const client = new Client({ name: "peer", version: "1" })
const headers = { Authorization: `Bearer ${key}` }
await client.connect(new StreamableHTTPClientTransport(new URL(address), { requestInit: { headers } }))

for await (const line of createInterface({ input: process.stdin })) {
  const { call, ...asked } = JSON.parse(line)
  try {
    console.log(JSON.stringify(await client[call](...(asked.params ? [asked.params] : []))))
  } catch (error) {
    console.log(JSON.stringify({ refused: error.code, message: error.message }))
  }
}
await client.close()
