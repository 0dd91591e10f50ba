import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { cliArguments } from '../../scripts/lib/cli-process.js';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import type { ConfigInput } from '../../src/config/config.js';
import { createRedisRecords } from '../../src/formats/record-store.js';
import { runCli } from '../support/cli.js';
import { ADMIN_TOKEN, ofFleetOf, type Service, startService } from '../support/serve.js';
import { exchangeNative, postExchange } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { createWorld, type World } from '../support/world.js';

/** As Passport, PHP and koa-session write their records by themselves: nothing says when the login was. */
function withoutTimes(config: ConfigInput): ConfigInput {
  return {
    ...config,
    sessions: (config.sessions ?? []).map((session) => ({
      ...session,
      principal: { subject: 'user.id', ...(session.principal?.tenant === undefined ? {} : { tenant: session.principal.tenant }) },
    })),
  };
}

let redis: PrivateRedis;
let world: World;
let service: Service;
let people = 0;
let name: string;
let subject: string;
beforeAll(async () => {
  remember(ADMIN_TOKEN);
  redis = await startRedis();
});
afterAll(async () => await redis.stop());
beforeEach(() => {
  people += 1;
  name = `person-${people}`;
  subject = `u-${name}`;
});

async function begin(configure: (config: ConfigInput) => ConfigInput): Promise<void> {
  world = await createWorld({ legacy: { redisUrl: redis.url, secrets: ['a-secret-of-these-tests-77af01'] }, configure });
  service = await startService(world, ofFleetOf(world));
}

async function finish(): Promise<void> {
  await service.stop();
  await world.close();
}

/** A program, which gets SIGINT once it has said `until`. */
async function run(program: string, args: readonly string[], until?: string): Promise<{ status: number | null; stdout: string }> {
  const child = spawn(program, [...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let interrupted = false;
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
      if (until === undefined || interrupted || !stdout.includes(until)) return;
      interrupted = true;
      child.kill('SIGINT');
    });
  const [status]: (number | null)[] = await once(child, 'close');
  return { status: status ?? null, stdout };
}

const end = async (...args: string[]) => await runCli(['end', '--why', 'ban', '--config', service.configFile, ...args]);
const me = async (credential: { cookie?: string; bearer?: string }) => (await world.call('/me', credential)).status;
const recordOf = async (at = -1) => {
  const key = world.legacy.keys.at(at) ?? '';
  return { key, text: await world.legacy.redis.get(key) };
};

/** Moves the latest session to another tenant. */
async function moveTo(tenant: string): Promise<void> {
  const { key, text } = await recordOf();
  const record = JSON.parse(text ?? '');
  await world.legacy.redis.set(key, JSON.stringify({ ...record, user: { ...record.user, tenant } }), 'KEEPTTL');
}

describe('crossfade end, where records say when the login was', () => {
  beforeAll(async () => await begin((config) => config));
  afterAll(finish);

  it('ends tokens and logins at once, on every live instance, and says so; no JSON stands among its words', async () => {
    const cookie = await world.login(name);
    const tokens = await exchangeNative(world, cookie);
    const unseen = await world.login(name);
    const { status, stdout, stderr } = await end('--subject', subject);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(
      /^Ended: 1 session \(tenant initech\) that tokens were made from, with all their tokens; every login to web before \S+Z whose record says when it was\.\n/,
    );
    expect(stdout).toContain('All 2 live instances have confirmed it.');
    expect(stdout).not.toContain('NOT');
    for (const credential of [{ cookie }, { cookie: unseen }, { bearer: tokens.access }]) expect(await me(credential)).toBe(401);
    expect(await me({ cookie: await world.login(name) })).toBe(200);
  });

  it('tells a program the same, with the line of the audit on standard error', async () => {
    await exchangeNative(world, await world.login(name));
    const { status, stdout, stderr } = await end('--subject', subject, '--json');
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      dryRun: false,
      sessions: 1,
      tenants: ['initech'],
      endedAt: expect.any(String),
      instances: 2,
      missing: [],
      timed: ['web'],
      untimed: [],
      beyond: [],
    });
    const audits = stderr
      .trim()
      .split('\n')
      .map((line): unknown => JSON.parse(line));
    expect(audits).toContainEqual(expect.objectContaining({ audit: 'person.ended', why: 'ban', sessions: 1 }));
  });

  it('ends with 4 where nobody of that name was ever seen, also the second time', async () => {
    for (let turn = 0; turn < 2; turn++) {
      const { status, stdout } = await end('--subject', 'u-nobody-at-all');
      expect([status, stdout]).toEqual([4, expect.stringContaining('Nobody of this name was ever seen with tokens')]);
    }
  });

  it('counts a session once: the second time there is nothing left', async () => {
    await exchangeNative(world, await world.login(name));
    expect((await end('--subject', subject)).stdout).toContain('Ended: 1 session');
    expect(await end('--subject', subject)).toMatchObject({ status: 0, stdout: expect.stringContaining('Ended: 0 sessions') });
  });

  it('--dry-run says what would be ended, and ends nothing', async () => {
    const cookie = await world.login(name);
    const tokens = await exchangeNative(world, cookie);
    const { status, stdout } = await end('--subject', subject, '--dry-run', '--sweep');
    expect(status).toBe(0);
    expect(stdout).toContain('Would end: 1 session');
    expect(stdout).toMatch(/Would delete: 1 session that was found among/);
    expect(await me({ bearer: tokens.access })).toBe(200);
    expect(await me({ cookie })).toBe(200);
  });

  it('a login after the end is left by the sweep', async () => {
    const old = await world.login(name);
    await end('--subject', subject);
    const fresh = await world.login(name);
    const { status, stdout } = await end('--subject', subject, '--dry-run', '--sweep');
    expect([status, stdout]).toEqual([0, expect.stringContaining('Would delete: 2 sessions')]);
    // Ended anew, the second login is older than that.
    expect(await me({ cookie: fresh })).toBe(200);
    expect(await me({ cookie: old })).toBe(401);
  });

  it('some records say no time: their sessions go on, which is told and is status 3; --sweep ends them', async () => {
    await exchangeNative(world, await world.login(name));
    const cookie = await world.login(name);
    const { key, text } = await recordOf();
    const record = JSON.parse(text ?? '');
    delete record.user.loggedInAt;
    await world.legacy.redis.set(key, JSON.stringify(record), 'KEEPTTL');
    const { status, stdout } = await end('--subject', subject);
    expect([status, stdout]).toEqual([3, expect.stringContaining('or some of them, say no time of the login')]);
    expect(await me({ cookie })).toBe(200);
    expect((await end('--subject', subject, '--sweep', '--yes')).status).toBe(0);
    expect(await me({ cookie })).toBe(401);
  });

  it('may be repeated for somebody who has come again', async () => {
    for (let turn = 0; turn < 2; turn++) {
      const { access } = await exchangeNative(world, await world.login(name));
      expect(await end('--subject', subject)).toMatchObject({ status: 0, stdout: expect.stringContaining('Ended: 1 session (tenant initech)') });
      expect(await me({ bearer: access })).toBe(401);
    }
  });

  it('says that an instance has not confirmed it, and ends with 2', async () => {
    const own = await startTcpProxy(world.config.redis.url ?? '');
    const deaf = await startService(world, (config) => ({ ...ofFleetOf(world)(config), redis: { ...world.config.redis, url: own.url } }));
    try {
      await own.cut();
      await exchangeNative(world, await world.login(name));
      const { status, stdout } = await end('--subject', subject);
      expect([status, stdout]).toEqual([2, expect.stringMatching(/NOT confirmed by /)]);
    } finally {
      await own.restore();
      await deaf.stop();
      await own.close();
    }
  });
});

describe('crossfade end, where records say no time', () => {
  beforeAll(async () => await begin(withoutTimes));
  afterAll(finish);

  it('says that sessions without tokens go on, and ends with 3; --sweep ends them, and nobody else’s', async () => {
    const cookie = await world.login(name);
    const record = await recordOf();
    const stranger = await world.login('bob');
    const other = await recordOf();
    const before = await end('--subject', subject);
    expect([before.status, before.stdout]).toEqual([
      4,
      expect.stringMatching(/NOT ended: sessions of web that tokens were never made from: .*--sweep/),
    ]);
    expect(await me({ cookie })).toBe(200);

    const swept = await end('--subject', subject, '--sweep', '--yes');
    expect([swept.status, swept.stderr]).toEqual([0, '']);
    expect(swept.stdout).toMatch(/Looking through the records of web: \S+ keys, 2,000 a second at most: \d+ s at least\. Ctrl-C interrupts it\./);
    expect(swept.stdout).toMatch(/Ended: 1 session that was found among \d+ keys\./);
    expect(await world.legacy.redis.exists(record.key)).toBe(0);
    expect(await me({ cookie })).toBe(401);
    expect((await postExchange(world, cookie)).status).toBe(400);
    // A request of the app that was under way writes it again.
    await world.legacy.redis.set(record.key, record.text ?? '', 'EX', 600);
    await expect.poll(async () => await me({ cookie })).toBe(401);
    expect(await me({ cookie: stranger })).toBe(200);
    expect(await world.legacy.redis.get(other.key)).toBe(other.text);
  });

  it('with tokens it ends what it can at once, and with 3', async () => {
    const { access } = await exchangeNative(world, await world.login(name));
    const unseen = await world.login(name);
    expect(await end('--subject', subject)).toMatchObject({ status: 3, stdout: expect.stringContaining('Ended: 1 session') });
    expect(await me({ bearer: access })).toBe(401);
    expect(await me({ cookie: unseen })).toBe(200);
  });

  it('at a terminal it asks whether to look for them: no leaves them, yes ends them', async () => {
    const cookie = await world.login(name);
    await exchangeNative(world, await world.login(name));
    const command = [process.execPath, ...cliArguments(['end', '--why', 'ban', '--config', service.configFile, '--subject', subject])].join(' ');
    for (const [answer, status, after] of [
      ['n\n', 3, 200],
      // Ctrl-D.
      ['\u0004', 3, 200],
      ['y\n', 0, 401],
    ] as const) {
      const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'] });
      let said = '';
      child.stdout.on('data', (chunk: Buffer) => {
        if (!said.includes('[y/N]') && (said + chunk.toString()).includes('[y/N]')) child.stdin.write(answer);
        said += chunk.toString();
      });
      const [ended]: (number | null)[] = await once(child, 'close');
      expect([ended, said]).toEqual([
        status,
        expect.stringMatching(/Sessions of web go on where no tokens were made from them\. Look for them among [\s\S]* keys/),
      ]);
      expect(await me({ cookie })).toBe(after);
    }
  }, 60_000);

  it('more than one tenant: names them and does nothing; --tenant ends one of them', async () => {
    const acme = await world.login(name);
    await moveTo('acme');
    const globex = await world.login(name);
    await moveTo('globex');
    const [one, two] = [await exchangeNative(world, acme), await exchangeNative(world, globex)];
    const unseen = await world.login(name);
    await moveTo('globex');

    const asked = await end('--subject', subject);
    expect([asked.status, asked.stdout, asked.stderr]).toEqual([2, '', expect.stringContaining('in 2 tenants: acme, globex. Nothing was done')]);
    expect(await me({ bearer: one.access })).toBe(200);

    const ended = await end('--subject', subject, '--tenant', 'acme', '--sweep');
    expect(ended.status).toBe(3);
    expect(ended.stdout).toContain('Ended: 1 session of tenant acme');
    expect(ended.stdout).toMatch(/NOT ended: 2 sessions in tenant globex: --tenant globex/);
    for (const credential of [{ bearer: one.access }, { cookie: acme }]) expect(await me(credential)).toBe(401);
    for (const credential of [{ bearer: two.access }, { cookie: globex }, { cookie: unseen }]) expect(await me(credential)).toBe(200);

    const rest = await end('--subject', subject, '--yes', '--sweep');
    expect(rest.status).toBe(0);
    for (const credential of [{ bearer: two.access }, { cookie: globex }, { cookie: unseen }]) expect(await me(credential)).toBe(401);
  });

  it('--sweep leaves a tenant that nobody named, and says so', async () => {
    const cookie = await world.login(name);
    const { status, stdout } = await end('--subject', subject, '--sweep');
    expect([status, stdout]).toEqual([3, expect.stringMatching(/NOT ended: 1 session in tenant initech: --tenant initech, or --yes ends it/)]);
    expect(await me({ cookie })).toBe(200);
  });

  it('--except-sid holds for the sweep as well', async () => {
    const cookie = await world.login(name);
    const { sid } = await exchangeNative(world, cookie);
    const other = await world.login(name);
    expect((await end('--subject', subject, '--sweep', '--except-sid', sid)).status).toBe(0);
    expect(await me({ cookie })).toBe(200);
    expect(await me({ cookie: other })).toBe(401);
  });

  it('interrupted, it says how to go on; gone on, it finds the rest', async () => {
    const cookies = await Promise.all(Array.from({ length: 20 }, async () => await world.login(name)));
    const pipeline = world.legacy.redis.pipeline();
    for (let n = 0; n < 3000; n++) pipeline.set(`page:${n}`, 'not a session', 'EX', 600);
    await pipeline.exec();
    const given = ['end', '--why', "it's a ban", '--config', service.configFile, '--subject', subject, '--sweep', '--yes', '--per-second', '250'];
    const { status, stdout: said } = await run(process.execPath, cliArguments(given), 'Looking through');
    expect([status, said]).toEqual([3, expect.stringContaining('NOT through: interrupted.')]);
    const [, command = ''] = /^Go on with: crossfade (.*)$/m.exec(said) ?? [];
    expect(command).toContain("--why 'it'\\''s a ban'");
    const resumed = await run('sh', ['-c', `node ${cliArguments([])[0]} ${command.replace('--per-second 250', '--per-second 100000')}`]);
    expect([resumed.status, resumed.stdout]).toEqual([0, expect.stringMatching(/Ended: \d+ sessions? that/)]);
    const ended = [...`${said}${resumed.stdout}`.matchAll(/Ended: (\d+) sessions? that \w+ found/g)].map(([, number]) => Number(number));
    expect(ended).toHaveLength(2);
    // What was found before counts as well.
    expect(ended[1]).toBe(20);
    for (const cookie of cookies) expect(await me({ cookie })).toBe(401);
    expect((await end('--subject', subject, '--resume', 'nonsense')).stderr).toContain('--resume: this is not what');
  }, 60_000);

  it('interrupted, a dry run says so, and what it prints is one as well', async () => {
    const cookie = await world.login(name);
    const pipeline = world.legacy.redis.pipeline();
    for (let n = 0; n < 2000; n++) pipeline.set(`page:${n}`, 'not a session', 'EX', 600);
    await pipeline.exec();
    const given = ['end', '--why', 'x', '--config', service.configFile, '--subject', subject, '--sweep', '--yes', '--dry-run', '--per-second', '250'];
    const { status, stdout } = await run(process.execPath, cliArguments(given), 'Looking through');
    expect([status, stdout]).toEqual([3, expect.stringMatching(/^Go on with: crossfade end .* --dry-run --resume /m)]);
    await world.legacy.redis.del(...Array.from({ length: 2000 }, (_, n) => `page:${n}`));
    expect(await me({ cookie })).toBe(200);
  });

  it('a record with bytes that are no UTF-8 is ended as well', async () => {
    const cookie = await world.login(name);
    const { key, text } = await recordOf();
    const odd = Buffer.from((text ?? '').replace('"views":', '"views":').replace('{"user"', '{"note":"\u00ff","user"'), 'latin1');
    await world.legacy.redis.set(key, odd, 'KEEPTTL');
    expect(await me({ cookie })).toBe(200);
    expect((await end('--subject', subject, '--sweep', '--yes')).status).toBe(0);
    expect(await world.legacy.redis.exists(key)).toBe(0);
  });

  it('tells a terminal nothing but words, and takes no empty name', async () => {
    const { stdout } = await end('--subject', 'u\u001b[2J\nall ended');
    expect(stdout).not.toContain('\u001b');
    expect(stdout).not.toMatch(/^all ended/m);
    expect(await end('--subject', '')).toMatchObject({ status: 1, stdout: '' });
  });

  it.each(['text', 'bytes', 'hash'] as const)('a record in Redis as %s is deleted only if it is, byte for byte, what was read', async (storage) => {
    const client = world.legacy.redis;
    const records = createRedisRecords({ client, reads: { read: async () => ({ values: [] }), areWhole: true } }, storage);
    const key = `record-${storage}`;
    const write = async (value: Buffer) => (storage === 'hash' ? await client.hset(key, 'user', value) : await client.set(key, value));
    const value = storage === 'text' ? Buffer.from('{"user":"zoë"}') : Buffer.from([0x7b, 0xff, 0x00, 0xc3, 0x7d]);
    await write(value);
    const read = await records.read(key);
    if (typeof read === 'string') throw new Error(read);
    await write(Buffer.concat([value, Buffer.from(' ')]));
    expect(await records.removeSame(key, read.text)).toBe(false);
    if (storage === 'hash') {
      await client.hset(key, 'user', value, 'more', '1');
      expect(await records.removeSame(key, read.text)).toBe(false);
      await client.hdel(key, 'more');
    } else await write(value);
    expect(await client.exists(key)).toBe(1);
    expect(await records.removeSame(key, read.text)).toBe(true);
    expect(await client.exists(key)).toBe(0);
    expect(await records.removeSame(key, read.text)).toBe(false);
  });
});
