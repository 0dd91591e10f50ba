import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { freePort } from './free-port.js';
import { closeServer } from './legacy-app.js';

export interface LaunchDarklyServer {
  readonly url: string;
  /** Streams that are open at the moment. */
  readonly streams: number;
  /** Sets a string or boolean flag to one value for everybody, live. */
  set(flag: string, value: unknown): void;
  /** Sends a flag as it is, however broken. */
  send(flag: Record<string, unknown>): void;
  /** Answers new streams with this status; 200 is back to normal. */
  answerWith(status: number): void;
  /** Cuts the open streams; they may come again. */
  drop(): void;
  /** Resolves when a stream has been opened after the call. */
  connected(): Promise<void>;
  stop(): Promise<void>;
  start(): Promise<void>;
}

/** A local server in LaunchDarkly's streaming protocol: the real SDK connects to it as it does to the vendor's. */
export async function startLaunchDarkly(): Promise<LaunchDarklyServer> {
  const port = await freePort();
  const flags = new Map<string, Record<string, unknown>>();
  const streams = new Set<ServerResponse>();
  let waiting: (() => void)[] = [];
  let status = 200;
  let version = 1;
  let server: Server;

  function write(stream: ServerResponse, event: string, data: unknown): void {
    stream.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  function publish(flag: Record<string, unknown>): void {
    const key = String(flag['key']);
    flags.set(key, flag);
    for (const stream of streams) write(stream, 'patch', { path: `/flags/${key}`, data: flag });
  }

  async function start(): Promise<void> {
    server = createServer((request, response) => {
      if (request.url?.startsWith('/bulk')) {
        request.resume();
        response.writeHead(202).end();
        return;
      }
      if (status !== 200) {
        response.writeHead(status).end();
        return;
      }
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      streams.add(response);
      response.once('close', () => streams.delete(response));
      write(response, 'put', { path: '/', data: { flags: Object.fromEntries(flags), segments: {} } });
      for (const resolve of waiting.splice(0)) resolve();
      waiting = [];
    });
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  }

  await start();
  return {
    url: `http://127.0.0.1:${port}`,
    get streams() {
      return streams.size;
    },
    set(key, value) {
      version += 1;
      publish({ key, version, on: true, variations: [value], offVariation: 0, fallthrough: { variation: 0 }, salt: key });
    },
    send(flag) {
      version += 1;
      publish({ version, ...flag });
    },
    answerWith(next) {
      status = next;
    },
    drop() {
      for (const stream of streams) stream.destroy();
    },
    connected: async () => await new Promise<void>((resolve) => waiting.push(resolve)),
    stop: async () => await closeServer(server),
    start,
  };
}
