import { setTimeout as sleep } from 'node:timers/promises';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { provide, succeeds } from '../../scripts/lib/programs.js';
import { createClient } from '../../src/client/index.js';
import type { Stage } from '../../src/stages.js';
import { type Chromium, startChromium } from '../e2e/chromium.js';
import { startFront } from '../e2e/front.js';
import { type AdoptedApp, type Adoption, linesChanged, startAdoption } from './adopt.js';

const PYTHON = '/usr/bin/python3';

const APPS: readonly (AdoptedApp & { readonly inBrowser: boolean; readonly lines: number })[] = [
  {
    name: 'Koa, in the app',
    program: () => [process.execPath],
    before: './koa/before.mjs',
    after: './koa/after.mjs',
    init: ['--cookie', 'koa.sess', '--subject', 'user.id'],
    sample: ['--cookie', 'koa.sess', '--subject', 'user.id'],
    isInApp: true,
    inBrowser: true,
    lines: 5,
  },
  {
    name: 'Express and Passport, behind nginx',
    program: () => [process.execPath],
    before: './express/before.mjs',
    after: './express/after.mjs',
    init: ['--format', 'express-session', '--subject', 'passport.user'],
    sample: ['--key-prefix', 'sess:', '--subject', 'passport.user'],
    inBrowser: true,
    lines: 5,
  },
  {
    name: 'PHP, behind nginx',
    program(redisPort) {
      const php = provide('php', ['php-cli', 'php-redis'], (path) => succeeds(path, ['--ri', 'redis']));
      const settings = { 'session.save_handler': 'redis', 'session.save_path': `tcp://127.0.0.1:${redisPort}` };
      return [php, ...Object.entries(settings).flatMap(([name, value]) => ['-d', `${name}=${value}`]), '-S', '127.0.0.1:PORT'];
    },
    before: './php/before.php',
    after: './php/after.php',
    init: ['--format', 'php', '--subject', 'user.id'],
    sample: ['--key-prefix', 'PHPREDIS_SESSION:', '--subject', 'user.id'],
    inBrowser: false,
    lines: 5,
  },
  {
    name: 'Flask, asked by format: http, behind nginx',
    program() {
      if (!succeeds(PYTHON, ['-c', 'import flask'])) provide('python3', ['python3', 'python3-flask'], () => succeeds(PYTHON, ['-c', 'import flask']));
      return [PYTHON, '-u'];
    },
    before: './flask/before.py',
    after: './flask/after.py',
    init: ['--format', 'http', '--cookie', 'session'],
    inBrowser: false,
    lines: 6,
  },
];

/** Somebody with the client library: in a browser, or in a program that keeps its cookies itself. */
interface Person {
  logIn(): Promise<void>;
  /** The status of a call of the app's API. */
  ask(): Promise<number>;
  greeting(): Promise<string>;
  state(): Promise<string>;
  logOut(): Promise<void>;
}

function programOf(url: string): Person {
  const jar = new Map<string, string>();
  const take = (lines: readonly string[]) => {
    for (const line of lines) {
      const [pair = ''] = line.split(';');
      const name = pair.slice(0, pair.indexOf('='));
      if (/max-age=0|expires=Thu, 01 Jan 1970/i.test(line)) jar.delete(name);
      else jar.set(name, pair);
    }
  };
  const cookies = { get: () => [...jar.values()].join('; '), set: take };
  const client = createClient({ baseUrl: url, clientId: 'web', headers: { origin: url }, cookies, fetch });
  const post = async (path: string) => {
    const body = new URLSearchParams({ username: 'alice' });
    const response = await fetch(`${url}${path}`, { method: 'POST', redirect: 'manual', headers: { cookie: cookies.get() }, body });
    take(response.headers.getSetCookie());
    if (response.status >= 400) throw new Error(`${path}: ${response.status}`);
  };
  return {
    logIn: async () => await post('/login?name=alice'),
    ask: async () => (await client.fetch(`${url}/api/me`)).status,
    greeting: async () => await (await fetch(url, { headers: { cookie: cookies.get() } })).text(),
    state: async () => client.state,
    logOut: async () => await post('/logout'),
  };
}

/** Its pages are opened in a tab of their own: a page is navigated to, the API is called. */
function browserOf(page: Page, tab: Page, url: string): Person {
  const post = async (path: string) =>
    await page.evaluate(async (to) => void (await fetch(to, { method: 'POST', body: new URLSearchParams({ username: 'alice' }) })), path);
  return {
    logIn: async () => await post('/login?name=alice'),
    ask: async () => await page.evaluate(async () => await window.ask('/api/me')),
    async greeting() {
      await tab.goto(url);
      return (await tab.textContent('body')) ?? '';
    },
    state: async () => await page.evaluate(() => window.client.state),
    logOut: async () => await post('/logout'),
  };
}

describe.each(APPS)('$name', ({ inBrowser, lines, ...app }) => {
  let adoption: Adoption;
  let browser: Chromium | undefined;
  let front: Awaited<ReturnType<typeof startFront>> | undefined;
  let person: Person;
  beforeAll(async () => {
    front = inBrowser ? await startFront() : undefined;
    adoption = await startAdoption(app, front?.url);
    if (!front) {
      person = programOf(adoption.url);
      return;
    }
    front.target = adoption.url;
    browser = await startChromium();
    const page = await browser.context.newPage();
    await page.goto(`${front.url}/page`);
    await page.waitForFunction(() => window.ask !== undefined);
    person = browserOf(page, await browser.context.newPage(), front.url);
  }, 180_000);
  afterAll(async () => {
    await browser?.close();
    await adoption?.close();
    await front?.close();
  });

  /** Comes again and again: nobody is ever refused, and everybody is who they are. */
  async function live(until: () => Promise<boolean>): Promise<void> {
    for (const end = Date.now() + 20_000; ; ) {
      expect(await person.ask()).toBe(200);
      expect(await person.greeting()).toBe('hello, u-alice');
      if (await until()) return;
      if (Date.now() > end) throw new Error('what should have happened did not, in 20 seconds');
      await sleep(100);
    }
  }

  /** A change of the flags file is in force within a second. */
  const forAWhile = () => {
    const end = Date.now() + 1500;
    return async () => Date.now() > end;
  };
  const hasState = (wanted: string) => async () => (await person.state()) === wanted;
  /** What the operator reads of the stage of the cohort. */
  const isToldOf = (stage: Stage) => async () => {
    const { output } = await adoption.run('crossfade status --json');
    const found: { cohorts: { cohort: string; stages: { stage: string }[] }[] } = JSON.parse(output);
    return found.cohorts.some(({ cohort, stages }) => cohort === 'web' && stages.some((one) => one.stage === stage));
  };

  it('goes all the way to tokens and back with the commands of the page: nobody is logged out, and the operator sees it', async () => {
    expect(await person.ask()).toBe(401);
    await person.logIn();
    expect(await person.greeting()).toBe('hello, u-alice');

    await adoption.adopt();
    if (app.sample) expect(adoption.printed.get('crossfade check')).toBeDefined();
    expect(adoption.printed.get('crossfade init')).toContain('crossfade.yaml');
    // The session of before is good, and the page of the bridge's own is nobody's business but the bridge's.
    await live(isToldOf('session-only'));
    adoption.setStage('shadow');
    await live(forAWhile());
    adoption.setStage('dual');
    await live(isToldOf('dual'));
    expect(await person.state()).toBe('session');
    adoption.setStage('jwt-preferred');
    await live(hasState('jwt'));
    adoption.setStage('jwt-only');
    await live(isToldOf('jwt-only'));
    for (const stage of ['jwt-preferred', 'dual', 'session-only'] as const) {
      adoption.setStage(stage);
      await live(forAWhile());
      expect(await person.state()).toBe('jwt');
    }
    adoption.setStage('recall');
    // Who has only access tokens falls back to the session once they run out.
    await live(app.sample ? hasState('session') : isToldOf('recall'));
    const { output } = await adoption.run('crossfade status');
    expect(output).toContain('nothing needs you');
    await person.logOut();
    expect(await person.greeting()).toBe('hello, stranger');
  }, 180_000);

  it('requests by token leave no records behind', async () => {
    await person.logIn();
    adoption.setStage('jwt-only');
    await live(hasState('jwt'));
    const before = await adoption.records();
    for (let n = 0; n < 20; n++) expect(await person.ask()).toBe(200);
    expect(await adoption.records()).toBe(before);
  }, 60_000);

  it(`${lines} lines of the app change`, () => {
    expect(linesChanged(app)).toHaveLength(lines);
  });
});
