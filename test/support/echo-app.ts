import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';

/** An app behind a proxy that answers with what has reached it, by the status that `?status=` names. */
export interface EchoApp {
  readonly url: string;
  /** How many requests have reached it. */
  reached(): number;
  close(): Promise<void>;
}

export interface Echo {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export async function startEchoApp(): Promise<EchoApp> {
  let reached = 0;
  const server = createServer({ maxHeaderSize: 64 * 1024 }, async (request, response) => {
    reached += 1;
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method, url, headers } = request;
    response.statusCode = Number(/[?&]status=(\d{3})/.exec(url ?? '')?.[1] ?? 200);
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({ method, url, headers, body: Buffer.concat(chunks).toString() }));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: urlOf(server), reached: () => reached, close: async () => await closeServer(server) };
}
