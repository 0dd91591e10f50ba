import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Client } from '../../src/client/index.js';
import type { Instance } from '../support/instance.js';
import { createWorld, type World } from '../support/world.js';
import { type Chromium, startChromium } from './chromium.js';
import { behind, type Front, startFront } from './front.js';

declare global {
  interface Window {
    client: Client;
    states: string[];
    ask(path?: string): Promise<number>;
    ahead(ms: number): void;
  }
}

let front: Front;
let world: World;
let browser: Chromium;

beforeAll(async () => {
  front = await startFront();
  world = await createWorld({
    configure: (config) => ({ ...behind(front)(config), keys: { ...config.keys, selfTestSeconds: 1 } }),
  });
  front.target = world.url;
  browser = await startChromium();
});
afterAll(async () => {
  await browser?.close();
  await front?.close();
  await world?.close();
});
beforeEach(async () => {
  front.target = world.url;
  await browser.context.clearCookies();
  await world.setFlags({ 'auth-migration-stage': 'jwt-preferred' });
});
afterEach(async () => {
  for (const page of browser.context.pages().slice(1)) await page.close();
});

/** The browser has logged in at the legacy app. */
async function logIn(name: string): Promise<void> {
  const pairs = (await world.login(name)).split('; ').map((pair) => pair.split('='));
  await browser.context.addCookies(
    pairs.map(([cookie = '', ...value]) => ({ name: cookie, value: value.join('='), url: front.url, httpOnly: true })),
  );
}

async function openTab(): Promise<Page> {
  const page = await browser.context.newPage();
  await page.goto(`${front.url}/page`);
  await page.waitForFunction(() => window.ask !== undefined);
  return page;
}

const ask = async (page: Page) => await page.evaluate(async () => await window.ask());
const stateOf = async (page: Page) => await page.evaluate(() => window.client.state);
const granted = (event: 'exchange.granted' | 'refresh.granted') => world.log.audits(event).length;

describe('crossfade-auth/client in Chromium', () => {
  it('moves from the cookie to a token that no storage holds', async () => {
    await logIn('alice');
    const before = granted('exchange.granted');
    const one = await openTab();
    expect(await ask(one)).toBe(200);
    await expect.poll(async () => await stateOf(one)).toBe('jwt');
    expect(await one.evaluate(() => document.cookie + JSON.stringify({ ...localStorage, ...sessionStorage }))).toBe('{}');
    expect(granted('exchange.granted') - before).toBe(1);
  });

  it('a page takes no token of whoever another tab belongs to: after another login it is that person', async () => {
    await logIn('alice');
    const old = await openTab();
    await ask(old);
    await expect.poll(async () => await stateOf(old)).toBe('jwt');
    await logIn('bob');
    const next = await openTab();
    for (let at = 0; at < 3; at++)
      expect(await next.evaluate(async () => JSON.stringify(await (await window.client.fetch('/me')).json()))).toContain('u-bob');
    await expect.poll(async () => await stateOf(next)).toBe('jwt');
    expect(await next.evaluate(async () => JSON.stringify(await (await window.client.fetch('/me')).json()))).toMatch(/u-bob.*jwt|jwt.*u-bob/);
  });

  it('an idle tab with tokens that have ended locks nobody out of jwt-only', async () => {
    await world.setFlags({ 'auth-migration-stage': 'jwt-only' });
    await logIn('bob');
    const idle = await openTab();
    await ask(idle);
    expect(await stateOf(idle)).toBe('jwt');
    await world.bridge.endSubject('u-bob', { why: 'his tokens end' });
    await new Promise((resolve) => setTimeout(resolve, 1100));
    await logIn('bob');
    const next = await openTab();
    expect([await ask(next), await ask(next)]).toEqual([200, 200]);
  });

  it('refreshes once for two tabs', async () => {
    await logIn('alice');
    const tabs = [await openTab(), await openTab()];
    for (const tab of tabs) {
      await ask(tab);
      await expect.poll(async () => await stateOf(tab)).toBe('jwt');
    }
    const before = granted('refresh.granted');
    for (const tab of tabs) await tab.evaluate(() => window.ahead(595_000));
    const statuses = await Promise.all(tabs.flatMap((tab) => [ask(tab), ask(tab), ask(tab)]));
    expect(new Set(statuses)).toEqual(new Set([200]));
    await expect.poll(() => granted('refresh.granted') - before).toBe(1);
    // Both have it now.
    await new Promise((resolve) => setTimeout(resolve, 300));
    await Promise.all(tabs.map(ask));
    expect(granted('refresh.granted') - before).toBe(1);
  });

  it('a logout in one tab ends the other', async () => {
    await logIn('bob');
    const [one, two] = [await openTab(), await openTab()];
    await ask(one);
    await ask(two);
    await expect.poll(async () => await stateOf(two)).toBe('jwt');
    await one.evaluate(async () => await window.client.logout());
    await expect.poll(async () => await stateOf(two)).toBe('signed-out');
    expect(await ask(two)).toBe(401);
    expect(await two.evaluate(() => window.states)).toEqual(['jwt', 'signed-out']);
  });

  it('is signed out in all tabs by a logout that the legacy app does alone', async () => {
    await logIn('bob');
    const tab = await openTab();
    await ask(tab);
    await expect.poll(async () => await stateOf(tab)).toBe('jwt');
    const cookie = (await browser.context.cookies(front.url)).map(({ name, value }) => `${name}=${value}`).join('; ');
    await world.legacy.logout(cookie);
    await expect.poll(async () => await ask(tab)).toBe(401);
    expect(await stateOf(tab)).toBe('signed-out');
  });

  it('signing breaks in mid-flight, at jwt-only, until tokens run out, and is mended: the user of the page notices nothing', async () => {
    await world.setFlags({ 'auth-migration-stage': 'jwt-only' });
    await logIn('alice');
    const tab = await openTab();
    const statuses: number[] = [await ask(tab)];
    expect(await stateOf(tab)).toBe('jwt');

    const keys = join(world.directory, 'keys');
    const whole = readdirSync(keys).map((name) => [join(keys, name), readFileSync(join(keys, name), 'utf8')] as const);
    for (const [path] of whole) writeFileSync(path, 'half a key', { mode: 0o600 });
    const restarted: Instance = await world.another();
    await expect.poll(() => restarted.bridge.signing().state).toBe('broken');
    front.target = restarted.url;
    statuses.push(await ask(tab));
    expect(await stateOf(tab)).toBe('jwt');
    // Its token is about to run out, and cannot be renewed; then it has.
    await tab.evaluate(() => window.ahead(590_000));
    statuses.push(await ask(tab), await ask(tab));
    await tab.evaluate(() => window.ahead(20_000));
    statuses.push(await ask(tab), await ask(tab));
    expect(await stateOf(tab)).toBe('session');

    for (const [path, text] of whole) writeFileSync(path, text, { mode: 0o600 });
    await expect.poll(() => restarted.bridge.signing().state, { timeout: 15_000 }).toBe('healthy');
    await tab.evaluate(() => window.ahead(20_000));
    await expect
      .poll(async () => {
        statuses.push(await ask(tab));
        return await stateOf(tab);
      })
      .toBe('jwt');
    expect(new Set(statuses)).toEqual(new Set([200]));
  });
});
