// The official TypeScript SDK 1.x as a client: legacy era. Usage: node ts_v1.mjs URL

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CallToolResultSchema,
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema
} from '@modelcontextprotocol/sdk/types.js';
import { ANSWER, ears, SAMPLED, walk } from './walk.mjs';

const CLOCK = 'demo://clock';

async function open(url) {
  const heard = ears();
  const client = new Client({ name: 'official-ts-v1', version: '1' }, { capabilities: { elicitation: {}, sampling: {} } });
  client.setRequestHandler(ElicitRequestSchema, () => ({ action: 'accept', content: { answer: ANSWER } }));
  client.setRequestHandler(CreateMessageRequestSchema, () => ({
    role: 'assistant',
    model: 'none',
    content: { type: 'text', text: SAMPLED }
  }));
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => heard.logs.push(params));
  client.setNotificationHandler(ToolListChangedNotificationSchema, () => heard.tools.push(true));
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => heard.clock.push(params.uri));
  const transport = new StreamableHTTPClientTransport(new URL(url));
  await client.connect(transport);
  return {
    era: 'legacy',
    heard,
    id: () => transport.sessionId,
    tools: async () => (await client.listTools()).tools.map((tool) => tool.name),
    call: (name, args, { onProgress, signal } = {}) =>
      client.callTool({ name, arguments: args }, CallToolResultSchema, { onprogress: onProgress, signal }),
    setLevel: (level) => client.setLoggingLevel(level),
    watch: () => client.subscribeResource({ uri: CLOCK }),
    unwatch: () => client.unsubscribeResource({ uri: CLOCK }),
    end: () => transport.terminateSession(),
    close: () => client.close()
  };
}

process.exit((await walk('TypeScript 1.x', process.argv[2], open)) ? 1 : 0);
