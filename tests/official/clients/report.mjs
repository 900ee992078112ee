// What the walks of this folder share: a line a check, waiting without sleeping blindly, what was heard.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import net from 'node:net';

const CHECK_MS_MAX = 20_000;

/** Prints `ok …` or `FAIL …: why` for each check and remembers whether one failed. */
export class Report {
  failed = 0;

  constructor(client) {
    this.client = client;
  }

  async check(what, body) {
    const label = `${this.client}: ${what}`;
    try {
      await within(CHECK_MS_MAX, body());
      console.log(`ok ${label}`);
    } catch (error) {
      this.failed += 1;
      const why = String(error?.message ?? error).replace(/\s+/g, ' ').slice(0, 400);
      const code = error?.code === undefined ? '' : ` (code ${error.code})`;
      console.log(`FAIL ${label}: ${why}${code}`);
    }
  }
}

/** Rejects when `promise` is not settled in `ms`. */
export function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A list that grows from elsewhere, and a way to wait for an entry. */
export class Heard {
  entries = [];
  #waiters = new Set();

  push(entry) {
    this.entries.push(entry);
    for (const wake of this.#waiters) wake();
  }

  /** The first entry at or after `from` that fits. */
  async until(fits, { from = 0, ms = 5000 } = {}) {
    const look = () => this.entries.slice(from).find(fits);
    let wake;
    const found = new Promise((done) => {
      wake = () => look() !== undefined && done();
      this.#waiters.add(wake);
      wake();
    });
    try {
      await within(ms, found);
    } catch {
      assert.fail(`not heard within ${ms} ms; heard ${JSON.stringify(this.entries.slice(from)).slice(0, 200)}`);
    } finally {
      this.#waiters.delete(wake);
    }
    return look();
  }
}

/** Waits until no byte went down for `quietMs`. */
export async function silence(cutter, quietMs, ms) {
  const end = Date.now() + ms;
  for (let seen = -1; seen !== cutter.downBytes; ) {
    assert(Date.now() < end, `bytes still arrive after ${ms} ms`);
    seen = cutter.downBytes;
    await new Promise((done) => setTimeout(done, quietMs));
  }
}

/** kill -9 for a replica that the runner started; `told` is what whoami said. Gives its port and pid. */
export function killReplica(told) {
  const { pid, port } = JSON.parse(told);
  const ours = (process.env.REGATTA_REPLICA_PIDS ?? '').split(',').map(Number);
  assert(ours.includes(pid), `whoami names process ${pid}, which is not one of the replicas ${ours}`);
  process.kill(pid, 'SIGKILL');
  return { pid, port };
}

/** Waits until nobody listens on a local port. */
export function closed(port) {
  return until(async () => !(await accepts('127.0.0.1', port)), 2000);
}

/** kill -9 for the gateway, which the runner starts again; waits until the new one listens on the port of `url`. */
export async function killGateway(url) {
  const { hostname, port } = new URL(url);
  const pid = Number(process.env.REGATTA_GATEWAY_PID);
  process.kill(pid, 'SIGKILL');
  // The old one is gone when the runner has seen its end.
  await until(() => !existsSync(`/proc/${pid}`), 2000);
  await until(() => accepts(hostname, port), 5000);
}

function accepts(host, port) {
  return new Promise((done) => {
    const socket = net.connect({ host, port: Number(port) });
    socket.on('connect', () => done(true));
    socket.on('error', () => done(false));
    socket.on('connect', () => socket.destroy());
  });
}

/** Asks again every 10 ms until the answer is true. */
async function until(ask, ms) {
  const end = Date.now() + ms;
  while (!(await ask())) {
    assert(Date.now() < end, `not so within ${ms} ms: ${ask}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

/** The text of a tool's result; a result with isError fails the check. */
export function text(result) {
  const found = result.content?.[0]?.text;
  assert(!result.isError, `the tool failed: ${found}`);
  return found;
}
