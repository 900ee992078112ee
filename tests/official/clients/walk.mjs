// One walk through the protocol with an official client, the same for every TypeScript client and either era.
//
// `open(url)` gives a session: { era, id(), tools(), call(name, args, options), setLevel(level), watch(), heard,
// end(), close() } where heard = { logs, tools, clock } are `Heard` lists. Needs the demo server behind `url`.

import assert from 'node:assert/strict';
import { Cutter } from './cutter.mjs';
import { closed, Heard, killGateway, killReplica, Report, silence, text, within } from './report.mjs';

const BUILT_IN = ['echo', 'add', 'sleep', 'whoami', 'counter', 'ask', 'sample', 'log', 'toggle_tool'];
/** What the elicitation and sampling handlers of the clients answer. */
export const ANSWER = 'blue, of course';
export const SAMPLED = 'a model said this';
const OUTCOME_UNKNOWN = -31001;
const RESUMED = 'io.regatta/sessionResumed';
// Without a gateway there is one replica, which cannot be killed.
const replicas = (process.env.REGATTA_REPLICA_PIDS ?? '').split(',').filter(Boolean).length;

/** Walks through everything; gives the number of failed checks. */
export async function walk(name, url, open) {
  const report = new Report(name);
  const cutter = await Cutter.before(url);
  const session = await connected(report, cutter, open);
  if (session) {
    await calls(report, session);
    await questions(report, session);
    await notifications(report, session);
    await (session.era === 'legacy' ? resume(report, session, cutter) : modernCut(report, session, cutter));
    await cancel(report, session, cutter);
    if (session.era === 'legacy') await end(report, session, url);
    await report.check('closes', () => session.close());
  }
  // In a session of its own, because some SDKs open a standing stream that was cut again only once.
  const second = replicas > 1 && (await connected(report, cutter, open));
  if (second) {
    await restart(report, second, url);
    await loss(report, second);
    await report.check('closes', () => second.close());
  }
  cutter.close();
  return report.failed;
}

/** A session, or nothing when it cannot be opened. */
async function connected(report, cutter, open) {
  let session;
  await report.check('connects', async () => {
    session = await open(cutter.url);
  });
  return session;
}

async function calls(report, session) {
  await report.check('lists the tools', async () => {
    const names = await session.tools();
    for (const name of BUILT_IN) assert(names.includes(name), `${name} is not among ${names}`);
  });
  await report.check('calls a tool', async () => {
    assert.equal(text(await session.call('echo', { text: 'straße ✓ "quoted"' })), 'straße ✓ "quoted"');
  });
  await report.check('is told that an unknown tool does not exist', async () => {
    await assert.rejects(session.call('no_such_tool', {}), (error) => error.code === -32602);
  });
  await report.check('makes 20 calls at once and gets each its own answer', async () => {
    const one = async (index) => text(await session.call('add', { a: index, b: 1000 }));
    const sums = await Promise.all(Array.from({ length: 20 }, (_, index) => one(index)));
    assert.deepEqual(sums, Array.from({ length: 20 }, (_, index) => String(index + 1000)));
  });
  if (session.era === 'legacy') {
    await report.check('keeps its own counter', async () => {
      for (const expected of ['1', '2', '3']) assert.equal(text(await session.call('counter', {})), expected);
    });
  }
  await report.check('hears progress, each step once and in order', async () => {
    assert.deepEqual(await sleepAndHear(session, 550), [100, 200, 300, 400, 500]);
  });
}

/** Sleeps at the server; gives the progress values heard. `onFirst` runs at the first one. */
async function sleepAndHear(session, ms, onFirst = () => {}) {
  const steps = [];
  const onProgress = ({ progress }) => {
    if (steps.push(progress) === 1) onFirst();
  };
  assert.equal(text(await session.call('sleep', { ms }, { onProgress })), `slept ${ms} ms`);
  return steps;
}

async function questions(report, session) {
  // Six times: over several replicas a sealed requestState must find its maker again.
  await report.check('answers elicitation', async () => {
    for (let round = 0; round < 6; round += 1) {
      assert.equal(text(await session.call('ask', { question: `Colour ${round}?` })), `answer: ${ANSWER}`);
    }
  });
  await report.check('answers sampling', async () => {
    assert.equal(text(await session.call('sample', { prompt: 'Say something' })), `model: ${SAMPLED}`);
  });
}

async function notifications(report, session) {
  await report.check('hears log messages of the level it asked for', async () => {
    await session.setLevel('warning');
    await session.call('log', { level: 'info', text: 'too quiet' });
    await session.call('log', { level: 'error', text: 'loud' });
    await session.heard.logs.until((message) => message.data === 'loud');
    assert(!session.heard.logs.entries.some((message) => message.data === 'too quiet'), 'the level is ignored');
  });
  await report.check('opens its stream of changes', () => session.watch());
  await report.check('hears that the tools changed', () => toggle(session, `official_${process.pid}_a`));
  await report.check('hears that a resource changed', () => session.heard.clock.until(() => true));
}

async function toggle(session, name, ms = 5000) {
  const from = session.heard.tools.entries.length;
  await session.call('toggle_tool', { name });
  await session.heard.tools.until(() => true, { from, ms });
  if (session.era === 'legacy') assert((await session.tools()).includes(name), `${name} is not listed`);
}

/** Legacy: a connection cut in mid-call is resumed with Last-Event-ID, with no gap and no repeat. */
async function resume(report, session, cutter) {
  await report.check('resumes a call after its connection was cut', async () => {
    const steps = await sleepAndHear(session, 2550, () => cutter.cut());
    assert.deepEqual(steps, Array.from({ length: 25 }, (_, index) => (index + 1) * 100));
  });
  await report.check('goes on after the cut', async () => {
    assert.equal(text(await session.call('echo', { text: 'still here' })), 'still here');
  });
}

/** Modern: a cut connection is a cancelled call. The client itself may wait on for an answer; it must be able to go on. */
async function modernCut(report, session, cutter) {
  await report.check('goes on after its connections were cut in mid-call', async () => {
    const abort = new AbortController();
    const call = new Promise((cut, lost) => {
      const onProgress = () => cut(cutter.cut());
      session.call('sleep', { ms: 10_000 }, { onProgress, signal: abort.signal }).then(lost, lost);
    });
    await call;
    // A call that meets a connection on its way down fails at the client; the one after it must not.
    const again = async () => text(await session.call('echo', { text: 'still here' }));
    assert.equal(await again().catch(again), 'still here');
    abort.abort('cut');
  });
}

async function cancel(report, session, cutter) {
  // Changes stop first: then silence on the wire means that the call ended at the server.
  await report.check('closes its stream of changes', () => session.unwatch());
  await report.check('cancels a call, and the server stops talking about it', async () => {
    const abort = new AbortController();
    const onProgress = () => abort.abort('no longer needed');
    const call = session.call('sleep', { ms: 30_000 }, { onProgress, signal: abort.signal });
    await assert.rejects(within(3000, call), (error) => !/not done within/.test(error.message));
    await silence(cutter, 400, 3000);
    assert.equal(text(await session.call('echo', { text: 'after' })), 'after');
  });
}

/** kill -9 of the gateway, which comes back: the session and what its replica knows of it are still there. */
async function restart(report, session, url) {
  const id = session.id();
  // A standing stream that was never open is not opened again.
  if (session.era === 'legacy') await report.check('hears changes in a new session', () => changes(session, 'b'));
  await report.check('keeps its session when the gateway is killed and comes back', async () => {
    const before = Number(text(await session.call('counter', {})));
    await killGateway(url);
    const count = async () => Number(text(await session.call('counter', {})));
    // A call that meets a connection on its way down fails at the client; the one after it must not.
    const after = await within(5000, count().catch(count));
    if (session.era === 'legacy') assert.equal(after, before + 1);
    assert.equal(session.id(), id);
  });
  if (session.era === 'modern') return;
  await report.check('still hears changes once its stream is open again', () => changes(session, 'c'));
}

/** Changes the tools until it is heard: what changes while a stream is not open (yet, or again) is not repeated. */
async function changes(session, suffix) {
  const change = (turn) => toggle(session, `official_${process.pid}_${suffix}${turn}`, 1500);
  await change(1).catch(() => change(2)).catch(() => change(3)).catch(() => change(4));
}

/** kill -9 of the replica that holds the session, idle first, then in the middle of a call. */
async function loss(report, session) {
  const id = session.id();
  await report.check('keeps its session when its replica is killed', async () => {
    const { pid, port } = killReplica(text(await session.call('whoami', {})));
    // A call that it had read before it died would be lost, and the client told so.
    await closed(port);
    const result = await within(5000, session.call('whoami', {}));
    assert.notEqual(JSON.parse(text(result)).pid, pid);
    assert.equal(session.id(), id);
    if (session.era === 'legacy') assert(RESUMED in (result._meta ?? {}), `no ${RESUMED} in the first answer`);
  });
  await report.check('still hears changes after the kill', async () => {
    await session.watch();
    await toggle(session, `official_${process.pid}_d`);
  });
  await report.check('is told when a call is lost with its replica, and goes on', async () => {
    const told = text(await session.call('whoami', {}));
    if (session.era === 'legacy') {
      const call = sleepAndHear(session, 8000, () => killReplica(told));
      await assert.rejects(within(6000, call), (error) => error.code === OUTCOME_UNKNOWN);
      // As above: the next call could be read by who is dying.
      await closed(JSON.parse(told).port);
    }
    assert.equal(text(await within(5000, session.call('echo', { text: 'on' }))), 'on');
    assert.equal(session.id(), id);
  });
}

async function end(report, session, url) {
  await report.check('ends its session, which is then unknown', async () => {
    const id = session.id();
    await session.end();
    const answer = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'mcp-session-id': id,
        'mcp-protocol-version': '2025-11-25'
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' })
    });
    await answer.text();
    assert.equal(answer.status, 404);
  });
}

/** What a session heard besides answers. */
export function ears() {
  return { logs: new Heard(), tools: new Heard(), clock: new Heard() };
}
