import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

const USES = `
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const isTrue = <T extends true>(): T | undefined => undefined;

async function uses(): Promise<void> {
  const config: crossfade.Config = await crossfade.loadConfig('crossfade.yaml');
  const input: crossfade.ConfigInput = {
    issuer: 'https://app.example.com',
    audience: ['api'],
    fleetSecretFile: 'fleet-secret',
    redis: { url: 'redis://127.0.0.1' },
    sessions: [{ name: 'web', format: 'koa-session', secretsFile: 'session-secrets', principal: { subject: 'user.id' } }],
    keys: { directory: 'keys' },
    rollout: { flags: { file: 'flags.json' } },
  };
  const mapping: crossfade.MappingFunction = (record) => (typeof record['user'] === 'string' ? { subject: record['user'] } : null);
  const bridge: crossfade.Bridge = await crossfade.createBridge(Math.random() > 2 ? config : input, { principal: mapping, force: { why: 'a test' } });
  const tokens: crossfade.IssuedTokens = await bridge.issueFor({ subject: '8' }, { client: 'android' });
  isTrue<Same<typeof tokens.accessToken, string>>();
  const ended: number = await bridge.endSubject('8', { why: 'password changed' });
  const stop: () => void = bridge.onEnded({ sid: 'x', subject: '8' }, () => undefined);
  const { ready, canIssue, problems } = await bridge.readiness();
  isTrue<Same<typeof ready, boolean>>();
  isTrue<Same<typeof problems, readonly string[]>>();
  const { state } = bridge.signing();
  isTrue<Same<typeof state, 'healthy' | 'degraded' | 'broken'>>();
  const store: crossfade.SessionStore = bridge.sessionStore('web');
  const key: crossfade.ExternalKey = bridge.externalKey();
  const code: crossfade.ErrorCode = 'invalid_token';
  const principal: Pick<crossfade.Principal, 'subject' | 'via'> = { subject: '8', via: 'jwt' };
  // @ts-expect-error There is no such code.
  const noCode: crossfade.ErrorCode = 'nonsense';
  // @ts-expect-error A person has a name.
  await bridge.issueFor({}, { client: 'android' });
  try {
    await bridge.reload(['rollout']);
  } catch (error) {
    if (error instanceof crossfade.ConfigError) error.problems.map(({ path, message }) => path + message);
    if (error instanceof crossfade.CrossfadeError) isTrue<Same<typeof error.code, crossfade.ErrorCode>>();
  }
  await bridge.close();
  void [ended, stop, canIssue, store, key, code, noCode, principal];
}
void uses;
`;

const CLIENT = `
const browser: client.Client = client.createClient({ baseUrl: 'https://app.example.com', exchange: 'when-open' });
browser.addEventListener('state', ({ type }) => type);
const isSignedOut: boolean = browser.state === 'signed-out';
const answer: Promise<Response> = browser.fetch('/orders');
// @ts-expect-error There is no such choice.
client.createClient({ baseUrl: '/', exchange: 'always' });
void [isSignedOut, answer];
`;

let app: string;
beforeAll(() => {
  app = mkdtempSync(join(tmpdir(), 'crossfade-types-'));
  // What an app has that uses the package without Koa: no @types/koa.
  for (const name of [
    'crossfade-auth',
    'zod',
    'prom-client',
    'launchdarkly-node-server-sdk',
    '@launchdarkly',
    '@opentelemetry',
    '@types/node',
    'undici-types',
  ]) {
    const at = join(app, 'node_modules', name);
    mkdirSync(dirname(at), { recursive: true });
    symlinkSync(name === 'crossfade-auth' ? ROOT : join(ROOT, 'node_modules', name), at);
  }
  writeFileSync(
    join(app, 'from-import.mts'),
    `import * as crossfade from 'crossfade-auth';\nimport * as client from 'crossfade-auth/client';\n${USES}${CLIENT}`,
  );
  writeFileSync(
    join(app, 'from-require.cts'),
    `import crossfade = require('crossfade-auth');\nimport client = require('crossfade-auth/client');\n${USES}${CLIENT}`,
  );
  writeFileSync(
    join(app, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        target: 'es2023',
        module: 'nodenext',
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: true,
        noEmit: true,
        preserveSymlinks: true,
        types: ['node'],
      },
      files: ['from-import.mts', 'from-require.cts'],
    }),
  );
});
afterAll(() => rmSync(app, { recursive: true, force: true }));

it('the public names have their types, from import and from require, without @types/koa', async () => {
  const found = await run(join(ROOT, 'node_modules', '.bin', 'tsc'), ['-p', app]).catch((error: unknown) => error);
  expect(found).toMatchObject({ stdout: '' });
});
