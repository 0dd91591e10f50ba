import type { Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createWorld, type World } from '../support/world.js';
import { type Chromium, startChromium } from './chromium.js';
import { behind, type Front, startFront } from './front.js';

let front: Front;
let world: World;
let browser: Chromium;
beforeAll(async () => {
  front = await startFront();
  world = await createWorld({
    // As a framework answers a page that has not changed.
    handlers: async (ctx, next) => {
      if (ctx.path !== '/stored') return await next();
      ctx.set({ 'Cache-Control': 'private, max-age=0', ETag: '"the-same"' });
      ctx.status = 200;
      if (ctx.fresh) ctx.status = 304;
      else ctx.body = 'a page';
    },
    configure: behind(front),
  });
  front.target = world.url;
  browser = await startChromium();
});
afterAll(async () => {
  await browser?.close();
  await front?.close();
  await world?.close();
});

async function nudgeOf(page: Page): Promise<string> {
  const said = await page.evaluate(async () => {
    const answer = await fetch('/stored');
    return { status: answer.status, migration: answer.headers.get('auth-migration') ?? '' };
  });
  expect(said.status).toBe(200);
  return /\b(exchange|return)=/.exec(said.migration)?.[1] ?? '';
}

it('the cache of a browser repeats no nudge, up and down through all stages', async () => {
  const pairs = (await world.login('alice')).split('; ').map((pair) => pair.split('='));
  await browser.context.addCookies(
    pairs.map(([cookie = '', ...value]) => ({ name: cookie, value: value.join('='), url: front.url, httpOnly: true })),
  );
  const page = await browser.context.newPage();
  await page.goto(`${front.url}/page`);
  const stages = ['session-only', 'shadow', 'dual', 'jwt-preferred', 'dual', 'jwt-preferred', 'recall', 'session-only'] as const;
  for (const stage of stages) {
    await world.setFlags({ 'auth-migration-stage': stage });
    const told = stage === 'jwt-preferred' ? 'exchange' : '';
    expect([stage, await nudgeOf(page), await nudgeOf(page)]).toEqual([stage, told, told]);
  }
  // It does revalidate: what was stored before the nudge is used again.
  expect(await page.evaluate(async () => (await fetch('/stored')).text())).toBe('a page');
});
