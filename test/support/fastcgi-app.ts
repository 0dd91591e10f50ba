import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';

export interface FastcgiApp {
  /** `127.0.0.1:PORT`, as `fastcgi_pass` wants it. */
  readonly address: string;
  close(): Promise<void>;
}

const [PARAMS, STDIN, STDOUT, END] = [4, 5, 6, 3];

/** Answers every request with its parameters as JSON: what PHP-FPM would have in `$_SERVER`. */
export async function startFastcgiApp(): Promise<FastcgiApp> {
  const server = createServer(serve).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return {
    address: `127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`,
    async close() {
      server.close();
      await once(server, 'close');
    },
  };
}

function serve(socket: Socket): void {
  let unread = Buffer.alloc(0);
  let params = Buffer.alloc(0);
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    unread = Buffer.concat([unread, chunk]);
    while (unread.length >= 8) {
      const [length, padding] = [unread.readUInt16BE(4), unread[6] ?? 0];
      if (unread.length < 8 + length + padding) return;
      const [type, content] = [unread[1], unread.subarray(8, 8 + length)];
      unread = unread.subarray(8 + length + padding);
      if (type === PARAMS) params = Buffer.concat([params, content]);
      if (type !== STDIN || length > 0) continue;
      const body = Buffer.from(`Status: 200 OK\r\nContent-Type: application/json\r\n\r\n${JSON.stringify(Object.fromEntries(pairsOf(params)))}`);
      socket.end(Buffer.concat([record(STDOUT, body), record(STDOUT, Buffer.alloc(0)), record(END, Buffer.alloc(8))]));
    }
  });
}

function record(type: number, content: Buffer): Buffer {
  const head = Buffer.from([1, type, 0, 1, 0, 0, 0, 0]);
  head.writeUInt16BE(content.length, 4);
  return Buffer.concat([head, content]);
}

function* pairsOf(params: Buffer): Generator<[string, string]> {
  for (let at = 0; at < params.length; ) {
    const lengths: number[] = [];
    for (let part = 0; part < 2; part++) {
      const isLong = ((params[at] ?? 0) & 0x80) !== 0;
      lengths.push(isLong ? params.readUInt32BE(at) & 0x7fffffff : (params[at] ?? 0));
      at += isLong ? 4 : 1;
    }
    const [name = 0, value = 0] = lengths;
    yield [params.toString('utf8', at, at + name), params.toString('utf8', at + name, at + name + value)];
    at += name + value;
  }
}
