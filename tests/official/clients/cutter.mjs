// A TCP relay in front of one address, so that a test can cut its client's connections.
//
// Copies bytes both ways, understands nothing. `cut()` resets every connection at once; later ones work.

import net from 'node:net';

export class Cutter {
  #pairs = new Set();
  #server;
  /** Bytes that went to the client so far. */
  downBytes = 0;
  url;

  /** A relay to the host and port of `url`; its own `url` has the same path. */
  static async before(url) {
    const cutter = new Cutter();
    const target = new URL(url);
    cutter.#server = net.createServer({ noDelay: true }, (client) => cutter.#relay(client, target));
    await new Promise((done) => cutter.#server.listen(0, '127.0.0.1', done));
    const own = new URL(url);
    own.port = String(cutter.#server.address().port);
    cutter.url = own.href;
    return cutter;
  }

  #relay(client, target) {
    const server = net.connect({ host: target.hostname, port: Number(target.port), noDelay: true });
    const pair = [client, server];
    this.#pairs.add(pair);
    server.on('data', (chunk) => (this.downBytes += chunk.length));
    client.pipe(server).pipe(client);
    for (const socket of pair) {
      socket.on('error', () => {});
      socket.on('close', () => {
        this.#pairs.delete(pair);
        for (const other of pair) other.destroy();
      });
    }
  }

  /** Resets every connection. */
  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.resetAndDestroy();
    this.#pairs.clear();
  }

  close() {
    this.#server.close();
    this.cut();
  }
}
