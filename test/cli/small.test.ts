import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Keygrip from 'keygrip';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { runCli } from '../support/cli.js';
import { record, remember, rememberCookie } from '../support/transcript.js';
import { createWorld, type World } from '../support/world.js';

let world: World;
let config: string;
beforeAll(async () => {
  world = await createWorld();
  config = join(world.directory, 'crossfade.json');
  writeFileSync(config, JSON.stringify(world.config));
});
afterAll(async () => await world.close());

describe('crossfade check --cookie-value-file', () => {
  it('verifies a real cookie, and says which setting fits one that another hash has signed', async () => {
    const file = join(world.directory, 'cookie');
    const cookie = await world.login('alice');
    writeFileSync(file, `Cookie: ${cookie}\n`);
    const good = await runCli(['check', '--config', config, '--cookie-value-file', file]);
    expect(good.status).toBe(0);
    const pair = cookie.split(';')[0] ?? '';
    writeFileSync(file, pair);
    const half = await runCli(['check', '--config', config, '--cookie-value-file', file]);
    expect([half.status, half.stdout]).toEqual([1, expect.stringContaining('koa.sess.sig, which signs it, is not')]);
    const other = `${pair}; koa.sess.sig=${new Keygrip([...world.secrets], 'sha256', 'hex').sign(pair)}`;
    rememberCookie(other);
    writeFileSync(file, other);
    const bad = await runCli(['check', '--config', config, '--cookie-value-file', file]);
    expect(bad.status).toBe(1);
    expect(bad.stdout).toContain('signature: { algorithm: sha256, encoding: hex }');
    // The setting that it names is the one that fits.
    const signature = { algorithm: 'sha256', encoding: 'hex' };
    writeFileSync(config, JSON.stringify({ ...world.config, sessions: (world.config.sessions ?? []).map((session) => ({ ...session, signature })) }));
    expect((await runCli(['check', '--config', config, '--cookie-value-file', file])).status).toBe(0);
    writeFileSync(config, JSON.stringify(world.config));
    // A secret behind the line - verifies nothing.
    const secrets = join(world.directory, 'session-secrets');
    const [signer = ''] = world.secrets;
    writeFileSync(file, cookie);
    writeFileSync(secrets, `the-next-secret-of-the-app-1b7f\n-\n${signer}\n`);
    const ended = await runCli(['check', '--config', config, '--cookie-value-file', file]);
    expect({ status: ended.status, stdout: ended.stdout }).toEqual({ status: 1, stdout: expect.stringContaining('line 3 of secretsFile') });
    writeFileSync(secrets, `${world.secrets.join('\n')}\n`);
  });
});

describe('small faults of a machine', () => {
  it('too few open files at the start are a sentence', () => {
    const crossfade = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
    const { status, stderr } = spawnSync('bash', ['-c', `ulimit -n 24; exec "${process.execPath}" "${crossfade}" serve --config "${config}"`], {
      encoding: 'utf8',
      timeout: 30_000,
    });
    record(stderr);
    expect(status).not.toBe(0);
    expect(stderr).toContain('may not open more files');
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  it('what a killed rotation has left in the key directory goes with the next one', async () => {
    const left = join(world.directory, 'keys', '.first.pem.999999');
    writeFileSync(left, 'half a key', { mode: 0o600 });
    utimesSync(left, 1, 1);
    expect((await runCli(['keys', 'generate', '--config', config])).status).toBe(0);
    expect(existsSync(left)).toBe(false);
  });

  it('a password in redis.url is a finding of check', async () => {
    const { redis } = world.config;
    writeFileSync(
      config,
      JSON.stringify({ ...world.config, redis: { ...redis, url: String(redis.url).replace('redis://', 'redis://:not-asked-for@') } }),
    );
    const { status, stdout } = await runCli(['check', '--config', config]);
    expect(status).toBe(1);
    expect(stdout).toContain('redis.url: holds a password');
    expect(stdout).not.toContain('not-asked-for');
    writeFileSync(config, JSON.stringify(world.config));
  });
});

describe('crossfade size', () => {
  it.each([
    [1_000_000, 100_000, 1],
    [20_000_000, 2_000_000, 4],
    [100_000_000, 10_000_000, 14],
  ])('%i sessions, %i active: %i masters', async (sessions, active, most) => {
    const { status, stdout } = await runCli(['size', '--sessions', String(sessions), '--active', String(active), '--json']);
    expect(status).toBe(0);
    const found = JSON.parse(stdout);
    expect(found.masters).toBeGreaterThanOrEqual(most === 1 ? 1 : 2);
    expect(found.masters).toBeLessThanOrEqual(most);
    expect(found.memoryBytes / sessions).toBeGreaterThan(2000);
    expect(found.refreshes).toBeCloseTo(active / 600);
  });

  it('says so where more are active than there are', async () => {
    const { status, stderr } = await runCli(['size', '--sessions', '1', '--active', '2']);
    expect([status, stderr.trim()]).toEqual([2, '--active: at most as many as --sessions']);
  });

  it('reads lives and rates of a configuration, and larger records take more', async () => {
    const sizeOf = async (...args: string[]) =>
      JSON.parse((await runCli(['size', '--sessions', '1000', '--active', '1000', '--json', ...args])).stdout);
    expect((await sizeOf('--record-bytes', '10222')).memoryBytes).toBeGreaterThan((await sizeOf()).memoryBytes + 10_000_000);
  });
});

describe('crossfade secrets add', () => {
  it('names what a run that was killed has left, and sweeps it after a minute', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'crossfade-secrets-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    cpSync(world.directory, directory, { recursive: true });
    const file = join(directory, 'fleet-secret');
    const before = readFileSync(file, 'utf8');
    writeFileSync(`${file}.new`, 'half of it');
    const add = async () => await runCli(['secrets', 'add', '--json', '--config', join(directory, 'crossfade.json')]);
    const first = await add();
    expect([first.status, first.stderr]).toEqual([
      2,
      expect.stringContaining('fleet-secret.new is there: the same command is running, or was killed'),
    ]);
    expect(readFileSync(file, 'utf8')).toBe(before);
    utimesSync(`${file}.new`, 1_700_000_000, 1_700_000_000);
    expect((await add()).status).toBe(0);
    const after = readFileSync(file, 'utf8');
    remember(...after.trim().replaceAll('pseudonyms=', '').split('\n'));
    expect([after.includes(before.trim()), existsSync(`${file}.new`)]).toEqual([true, false]);
  });
});
