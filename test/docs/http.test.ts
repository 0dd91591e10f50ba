import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ADMIN_TOKEN, type Service, startService } from '../support/serve.js';
import { record, remember } from '../support/transcript.js';
import { CLIENT_SECRETS, createWorld, ORIGIN, type World } from '../support/world.js';

const PAGE = readFileSync(new URL('../../docs/http.md', import.meta.url), 'utf8');

let world: World;
let service: Service;
beforeAll(async () => {
  remember(ADMIN_TOKEN);
  world = await createWorld();
  service = await startService(world);
});
afterAll(async () => {
  await service.stop();
  await world.close();
});

it('docs/http.md: every request can be pasted, in their order, and is answered as the page says', async () => {
  const [first = '', ...blocks] = [...PAGE.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, text = '']) => text);
  const settings = [
    `BRIDGE=${service.url}`,
    `ADMIN=${service.admin}`,
    `ORIGIN=${ORIGIN}`,
    `SESSION='${await world.login('alice')}'`,
    ...first.split('\n').filter((line) => line.startsWith('token()')),
  ];
  const script = blocks.map((block, at) => {
    const secret = block.includes('login:') ? CLIENT_SECRETS.login : CLIENT_SECRETS['orders-api'];
    // Each curl also says the status that it got.
    return `SECRET=${secret}\n${block.replaceAll('curl -s', `curl -o answer-${at} -w '%{http_code}\\n' -s`)}`.replace(
      /(TOKENS=\$\()([\s\S]*?)\)\n/,
      (_, __, command: string) => `${command}\nTOKENS=$(cat answer-${at})\n`,
    );
  });
  const { status, stdout, stderr } = await sh([...settings, ...script].join('\n'));
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const expected = blocks.flatMap((block) => /^# (\d{3})$/m.exec(block)?.[1] ?? []);
  expect(stdout.trim().split('\n')).toEqual(expected);
  expect(expected.length).toBe(blocks.length);
});

it('docs/http.md has every endpoint', () => {
  for (const path of ['token', 'session', 'issue', 'revoke', 'introspect', 'logout', 'verify']) expect(PAGE).toContain(`$BRIDGE/auth/${path}`);
});

async function sh(script: string): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn('sh', ['-e', '-c', script], { cwd: world.directory });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) child[name].on('data', (chunk: Buffer) => (output[name] += chunk.toString()));
  const [status]: (number | null)[] = await once(child, 'close');
  record(output.stderr);
  return { status: status ?? null, ...output };
}
