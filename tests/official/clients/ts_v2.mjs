// The official TypeScript client 2.x: first the legacy era, then the modern one. Usage: node ts_v2.mjs URL

import { Client, LOG_LEVEL_META_KEY, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import assert from 'node:assert/strict';
import { ANSWER, ears, SAMPLED, walk } from './walk.mjs';

const CLOCK = 'demo://clock';

function client(mode, heard) {
  const options = { capabilities: { elicitation: {}, sampling: {} }, versionNegotiation: { mode } };
  const made = new Client({ name: 'official-ts-v2', version: '1' }, options);
  made.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: { answer: ANSWER } }));
  made.setRequestHandler('sampling/createMessage', () => ({
    role: 'assistant',
    model: 'none',
    content: { type: 'text', text: SAMPLED }
  }));
  made.setNotificationHandler('notifications/message', ({ params }) => heard.logs.push(params));
  made.setNotificationHandler('notifications/tools/list_changed', () => heard.tools.push(true));
  made.setNotificationHandler('notifications/resources/updated', ({ params }) => heard.clock.push(params.uri));
  return made;
}

/** What both eras have in common. `meta()` is added to each call's `_meta`. */
function session(era, made, heard, transport, meta) {
  return {
    era,
    heard,
    id: () => transport.sessionId,
    tools: async () => (await made.listTools(undefined, { cacheMode: 'bypass' })).tools.map((tool) => tool.name),
    call: (name, args, { onProgress, signal } = {}) =>
      made.callTool({ name, arguments: args, ...meta() }, { onprogress: onProgress, signal }),
    close: () => made.close()
  };
}

async function openLegacy(url) {
  const heard = ears();
  const made = client('legacy', heard);
  const transport = new StreamableHTTPClientTransport(new URL(url));
  await made.connect(transport);
  assert.equal(made.getProtocolEra(), 'legacy');
  return {
    ...session('legacy', made, heard, transport, () => ({})),
    setLevel: (level) => made.setLoggingLevel(level),
    watch: () => made.subscribeResource({ uri: CLOCK }),
    unwatch: () => made.unsubscribeResource({ uri: CLOCK }),
    end: () => transport.terminateSession()
  };
}

async function openModern(url) {
  const heard = ears();
  const made = client('auto', heard);
  const transport = new StreamableHTTPClientTransport(new URL(url));
  await made.connect(transport);
  assert.equal(made.getProtocolEra(), 'modern', 'server/discover did not lead to the modern era');
  let level;
  let subscription;
  return {
    ...session('modern', made, heard, transport, () => (level ? { _meta: { [LOG_LEVEL_META_KEY]: level } } : {})),
    setLevel: async (wanted) => (level = wanted),
    watch: async () => {
      subscription = await made.listen({ toolsListChanged: true, resourceSubscriptions: [CLOCK] });
      assert.equal(subscription.honoredFilter.toolsListChanged, true);
    },
    unwatch: () => subscription.close()
  };
}

const url = process.argv[2];
const eras = { legacy: openLegacy, modern: openModern };
const wanted = process.argv[3] ? [process.argv[3]] : Object.keys(eras);
let failed = 0;
for (const era of wanted) failed += await walk(`TypeScript 2.x ${era}`, url, eras[era]);
process.exit(failed ? 1 : 0);
