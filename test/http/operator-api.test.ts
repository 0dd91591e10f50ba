import { request } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli } from '../support/cli.js';
import { ADMIN_TOKEN, ofFleetOf, type Service, startService } from '../support/serve.js';
import { remember } from '../support/transcript.js';
import { createWorld, ORIGIN, type World } from '../support/world.js';

let world: World;
let service: Service;
let cookie: string;
let csrfToken: string;

beforeAll(async () => {
  world = await createWorld();
  service = await startService(world, ofFleetOf(world));
});
afterAll(async () => {
  await service?.stop();
  await world?.close();
});

interface Call {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: unknown;
}

/** As no browser sends it: with any `Host` and `Origin`. */
async function call(path: string, { method = 'GET', headers = {}, json }: Call = {}): Promise<{ status: number; body: string; setCookie: string }> {
  return await new Promise((resolve, reject) => {
    const sent = request(service.admin + path, {
      method,
      headers: { ...(json === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    });
    sent.once('error', reject);
    sent.once('response', (answer) => {
      let body = '';
      answer.on('data', (chunk) => {
        body += String(chunk);
      });
      answer.once('end', () => resolve({ status: answer.statusCode ?? 0, body, setCookie: String(answer.headers['set-cookie'] ?? '') }));
    });
    sent.end(json === undefined ? undefined : JSON.stringify(json));
  });
}

const clamp = { on: 'all', stage: 'dual', why: 'a test' };
const clamps = async () => JSON.parse((await call('/api/status', { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } })).body)['clamps'];

describe('signing in at the console', () => {
  it('refuses another token, and a sign-in from another site', async () => {
    const own = { origin: service.admin };
    expect((await call('/api/sign-in', { method: 'POST', headers: own, json: { token: 'x'.repeat(40) } })).status).toBe(401);
    const foreign = await call('/api/sign-in', { method: 'POST', headers: { origin: 'https://evil.example' }, json: { token: ADMIN_TOKEN } });
    expect([foreign.status, foreign.setCookie]).toEqual([403, '']);
    expect((await call('/api/sign-in', { method: 'POST', json: { token: ADMIN_TOKEN } })).status).toBe(403);
  });

  it('gives a cookie that is not the token, for scripts out of reach', async () => {
    const signedIn = await call('/api/sign-in', { method: 'POST', headers: { origin: service.admin }, json: { token: ADMIN_TOKEN } });
    expect(signedIn.status).toBe(204);
    expect(signedIn.setCookie).toMatch(/^crossfade-console=\d+\.[\w-]+; Path=\/; Max-Age=28800; HttpOnly; SameSite=Strict$/);
    expect(signedIn.setCookie).not.toContain(ADMIN_TOKEN);
    cookie = signedIn.setCookie.split(';')[0] ?? '';
    remember(cookie.split('.')[1] ?? '');
    csrfToken = JSON.parse((await call('/api/session', { headers: { cookie } })).body)['csrfToken'];
    remember(csrfToken);
  });

  it('takes no cookie whose time or MAC was changed', async () => {
    const [name, value = ''] = cookie.split('=');
    const [endsAt = '', mac = ''] = value.split('.');
    for (const changed of [`${Number(endsAt) + 1}.${mac}`, `${endsAt}.${mac.slice(1)}A`, endsAt, '', `${endsAt}.`])
      expect((await call('/api/status', { headers: { cookie: `${name}=${changed}` } })).status).toBe(401);
  });

  it.each(['Bearer null', 'Bearer undefined', 'Bearer ', 'Basic dTpw'])('ignores %j when it comes with the cookie', async (authorization) => {
    expect((await call('/api/status', { headers: { cookie, authorization } })).status).toBe(200);
    expect((await call('/api/status', { headers: { authorization } })).status).toBe(401);
  });

  it.each([
    ['a wrong bearer', '/api/status', { authorization: `Bearer ${'x'.repeat(40)}` }, 401],
    ['two bearers in one header', '/api/status', { authorization: `Bearer ${ADMIN_TOKEN}, Bearer ${ADMIN_TOKEN}` }, 400],
    ['a token in the query', `/api/status?access_token=${ADMIN_TOKEN}`, {}, 400],
  ])('refuses %s although the cookie is good', async (_name, path, headers, status) => {
    const answer = await call(path, { headers: { cookie, ...headers } });
    expect([answer.status, answer.body]).toEqual([status, expect.not.stringContaining('clamps')]);
  });

  it('says nothing to whoever is not signed in but that nobody is', async () => {
    expect(await call('/api/session')).toMatchObject({ status: 204, body: '' });
    for (const path of ['/api/status', '/api/series', '/api/events', '/api/affected?on=all&stage=dual', '/elsewhere'])
      expect((await call(path)).status).toBe(401);
  });
});

describe('without admin.tokenFile', () => {
  it('there is no console, and that is said', async () => {
    const bare = await startService(world, ({ admin, ...config }) => ({ ...config, admin: { port: admin?.port ?? 0 } }));
    try {
      const answer = await fetch(bare.admin);
      expect([answer.status, await answer.json()]).toEqual([
        404,
        expect.objectContaining({ error_description: expect.stringContaining('admin.tokenFile') }),
      ]);
      expect((await fetch(`${bare.admin}/api/status`, { headers: { authorization: 'Bearer ' } })).status).toBe(401);
    } finally {
      await bare.stop();
    }
  });
});

describe('setting a clamp by the console', () => {
  it('needs the CSRF token and the console as its origin: nothing is set without', async () => {
    const own = { cookie, origin: service.admin };
    const cases: Record<string, string>[] = [
      own,
      { ...own, 'x-csrf-token': 'wrong' },
      { ...own, 'x-csrf-token': csrfToken, origin: 'https://evil.example' },
      { cookie, 'x-csrf-token': csrfToken },
      { ...own, 'x-csrf-token': csrfToken, origin: 'null' },
    ];
    for (const headers of cases) {
      const answer = await call('/api/clamps', { method: 'POST', headers, json: clamp });
      expect([answer.status, JSON.parse(answer.body)['error']]).toEqual([403, 'invalid_request']);
    }
    expect(await clamps()).toEqual([]);
  });

  it('sets and releases it with both, and with the bearer token alone', async () => {
    for (const headers of [{ cookie, origin: service.admin, 'x-csrf-token': csrfToken }, { authorization: `Bearer ${ADMIN_TOKEN}` }]) {
      const set = await call('/api/clamps', { method: 'POST', headers, json: clamp });
      expect([set.status, JSON.parse(set.body)]).toEqual([200, { instances: 2, missing: [], otherNames: [] }]);
      expect(await clamps()).toEqual([expect.objectContaining({ selector: { on: 'all' }, stage: 'dual', by: 'operator', why: 'a test' })]);
      const released = await call('/api/clamps/release', { method: 'POST', headers, json: { on: 'all', why: 'done' } });
      expect(JSON.parse(released.body)['released']).toHaveLength(1);
      expect(await clamps()).toEqual([]);
    }
  });

  it('says where a request is wrong, and sets nothing', async () => {
    const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
    const cases: [unknown, RegExp][] = [
      [{ ...clamp, why: ' ' }, /^why: /],
      [{ ...clamp, stage: 'faster' }, /^stage: /],
      [{ ...clamp, on: 'client', name: 'nobody' }, /^name: must be one of web, ios/],
      [{ ...clamp, on: 'client' }, /^name: /],
      [{ ...clamp, forSeconds: 0 }, /^forSeconds: /],
      [{ ...clamp, more: 1 }, /more/],
      [null, /./],
    ];
    for (const [json, told] of cases) {
      const answer = await call('/api/clamps', { method: 'POST', headers, json });
      expect([answer.status, JSON.parse(answer.body)['error']]).toEqual([400, 'invalid_request']);
      expect(JSON.parse(answer.body)['error_description']).toMatch(told);
    }
    expect(await clamps()).toEqual([]);
    expect((await call('/api/clamps', { headers })).status).toBe(405);
    expect((await call('/api/series?span=year', { headers })).status).toBe(400);
  });
});

describe('what is shown', () => {
  it('`crossfade status --json` says what /api/status says', async () => {
    await world.call('/me', { cookie: await world.login('alice'), headers: { origin: ORIGIN } });
    const asked = async (): Promise<Record<string, unknown>[]> => [
      JSON.parse((await call('/api/status', { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } })).body),
      JSON.parse((await runCli(['status', '--json', '--config', service.configFile])).stdout),
    ];
    // Their ages differ by the moment between the two.
    const still = ({ at: _, instances, ...rest }: Record<string, unknown>) => ({
      ...rest,
      instances: JSON.parse(JSON.stringify(instances), (name, value) => (['upSeconds', 'lagSeconds', 'clockOffSeconds'].includes(name) ? 0 : value)),
    });
    await expect
      .poll(
        async () => {
          const [api = {}, cli = {}] = await asked();
          return JSON.stringify(still(api)) === JSON.stringify(still(cli)) && JSON.stringify(api).includes('"session":1');
        },
        { timeout: 20_000, interval: 500 },
      )
      .toBe(true);
  });

  it('the audit stream tells of all instances, and of nothing that somebody else wrote into Redis', async () => {
    await world.legacy.redis.xadd(`${world.prefix}progress:audit`, '*', 'entry', 'forged.{"event":"key.denied"}');
    const stop = new AbortController();
    const answer = await fetch(`${service.admin}/api/events`, { headers: { authorization: `Bearer ${ADMIN_TOKEN}` }, signal: stop.signal });
    expect(answer.headers.get('content-type')).toMatch(/^text\/event-stream/);
    let told = '';
    const reading = (async () => {
      for await (const chunk of answer.body ?? []) told += Buffer.from(chunk).toString();
    })().catch(() => undefined);
    // On the world's own instance: this one hears of it by Redis.
    await world.bridge.endSubject('u-nobody', { why: 'only to be told' });
    await expect.poll(() => told).toContain('"event":"person.ended"');
    expect(told).not.toContain('forged');
    stop.abort();
    await reading;
  });
});
