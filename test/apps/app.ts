import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { createInterface } from 'node:readline';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';
import { rememberCookie } from '../support/transcript.js';

/**
 * A legacy app with sessions by the real library, in its own language. All of them have `POST /login` with a `name`, `POST /logout`, and
 * `GET /`, which greets whoever is logged in.
 */
export interface ForeignApp {
  readonly url: string;
  /** Logs in as a browser would that sends `cookie`, and gives the `Cookie` header that it sends from then on. */
  login(name: string, cookie?: string): Promise<string>;
  /** The `Set-Cookie` lines of a login. */
  linesOfLogin(name: string): Promise<readonly string[]>;
  logout(cookie: string): Promise<void>;
  greeting(cookie: string): Promise<string>;
  close(): Promise<void>;
}

function appAt(url: string, close: () => Promise<void>): ForeignApp {
  return {
    url,
    async login(name, cookie) {
      const headers = cookie === undefined ? {} : { cookie };
      const response = await fetch(`${url}/login`, { method: 'POST', headers, body: new URLSearchParams({ name }), redirect: 'manual' });
      if (response.status >= 400) throw new Error(`the app did not log in: ${response.status} ${await response.text()}`);
      const after = cookieJar(cookie, response);
      rememberCookie(after);
      return after;
    },
    async linesOfLogin(name) {
      const response = await fetch(`${url}/login`, { method: 'POST', body: new URLSearchParams({ name }), redirect: 'manual' });
      rememberCookie(cookieJar(undefined, response));
      return response.headers.getSetCookie();
    },
    async logout(cookie) {
      const response = await fetch(`${url}/logout`, { method: 'POST', headers: { cookie }, redirect: 'manual' });
      if (response.status >= 400) throw new Error(`the app did not log out: ${response.status} ${await response.text()}`);
    },
    greeting: async (cookie) => await (await fetch(url, { headers: { cookie } })).text(),
    close,
  };
}

export async function appOfServer(server: Server, close: () => Promise<unknown> = async () => undefined): Promise<ForeignApp> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return appAt(urlOf(server), async () => {
    await closeServer(server);
    await close();
  });
}

/** A program that says on standard output or standard error, in a line that `ready` matches, that it listens. */
export async function appOfProgram(
  program: string,
  args: readonly string[],
  { port, ready, env = {} }: { port: number; ready: RegExp; env?: Record<string, string> },
): Promise<ForeignApp> {
  const child = spawn(program, [...args], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const lines: string[] = [];
  await new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on('line', (line) => {
        lines.push(line);
        if (ready.test(line)) resolve();
      });
    }
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`${program} ended with ${code}:\n${lines.join('\n')}`)));
  });
  return appAt(`http://127.0.0.1:${port}`, async () => await end(child));
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}

/** What a browser sends that had `cookie` and got this response. */
function cookieJar(cookie: string | undefined, response: Response): string {
  const jar = new Map((cookie ?? '').split('; ').flatMap((pair) => (pair === '' ? [] : [[pair.split('=')[0] ?? '', pair] as const])));
  for (const line of response.headers.getSetCookie()) {
    const pair = line.split(';')[0] ?? '';
    jar.set(pair.split('=')[0] ?? '', pair);
  }
  return [...jar.values()].join('; ');
}
