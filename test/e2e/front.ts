import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, request as send } from 'node:http';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';
import type { ConfigInput } from '../../src/config/config.js';

/** What stands in front of the instances: pages with the client library, and whatever else goes to the target of the moment. */
export interface Front {
  readonly url: string;
  /** Where requests go: as a load balancer after a rolling restart. */
  target: string;
  /** The legacy app, for everything but the bridge's own paths and `/me`, where it is not part of the target. */
  app?: string;
  close(): Promise<void>;
}

const PAGE = `<!doctype html><title>app</title><script type="module">
import { createClient } from '/client/index.js';
window.client = createClient({ baseUrl: '/' });
window.states = [];
window.client.addEventListener('state', () => window.states.push(window.client.state));
window.ask = async (path = '/me') => (await window.client.fetch(path)).status;
window.ahead = (ms) => { const now = Date.now; Date.now = () => now() + ms; };
</script>`;

/** The configuration of a bridge behind it, for a browser: on http, with the client `web` known by its host. */
export function behind(front: Front): (config: ConfigInput) => ConfigInput {
  return (config) => ({
    ...config,
    issuer: front.url,
    sessions: (config.sessions ?? []).map((session) => ({ ...session, cookieOptions: { secure: false } })),
    clients: [
      { id: 'web', origins: [front.url], refreshTransport: 'cookie', exchanges: true, wayBack: true, match: { host: new URL(front.url).host } },
    ],
  });
}

export async function startFront(): Promise<Front> {
  const server = createServer((request, response) => {
    const path = request.url ?? '/';
    if (path === '/page') return void response.setHeader('content-type', 'text/html').end(PAGE);
    if (/^\/client\/[a-z]+\.js$/.test(path)) {
      const script = readFileSync(new URL(`../../dist${path}`, import.meta.url));
      return void response.setHeader('content-type', 'text/javascript').end(script);
    }
    const { hostname, port } = new URL(front.app !== undefined && !/^\/(auth\/|\.well-known\/|me$)/.test(path) ? front.app : front.target);
    const onward = send({ hostname, port, path, method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.once('error', () => response.writeHead(502).end());
    request.pipe(onward);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const front: Front = { url: urlOf(server), target: '', close: async () => await closeServer(server) };
  return front;
}
