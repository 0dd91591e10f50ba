import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ADMIN_TOKEN, ofFleetOf, type Service, startService } from '../support/serve.js';
import { createWorld, ORIGIN, type World } from '../support/world.js';
import { type Chromium, startChromium } from './chromium.js';

let world: World;
let service: Service;
let browser: Chromium;
let page: Page;
/** What the page has complained of: a violation of its policy among it. */
const complaints: string[] = [];

beforeAll(async () => {
  world = await createWorld();
  service = await startService(world, ofFleetOf(world));
  browser = await startChromium();
  page = await browser.context.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  page.on('pageerror', ({ message }) => complaints.push(message));
});
afterAll(async () => {
  await browser?.close();
  await service?.stop();
  await world?.close();
});

async function api(path: string): Promise<Record<string, unknown>> {
  const answer = await fetch(service.admin + path, { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
  expect(answer.status).toBe(200);
  return Object.fromEntries(Object.entries((await answer.json()) ?? {}));
}

/** The cells of the row that a table names so. */
async function row(table: string, name: string): Promise<string[]> {
  return await page
    .locator(`#${table} tbody tr`, { has: page.locator('th', { hasText: name }) })
    .first()
    .locator('td')
    .allInnerTexts();
}

describe('the console', () => {
  it('asks for the token, refuses a wrong one, and keeps none of it where a script could read it', async () => {
    await page.goto(service.admin);
    await page.fill('#token', 'not the token at all, but long enough');
    await page.click('#sign-in-form button');
    await page.getByText('That is not the token.').waitFor();
    expect(await page.locator('#console').isVisible()).toBe(false);
    await page.fill('#token', ADMIN_TOKEN);
    await page.keyboard.press('Enter');
    await page.locator('#clients table').waitFor();
    expect(
      await page.evaluate('document.cookie + JSON.stringify({ ...localStorage, ...sessionStorage }) + document.documentElement.outerHTML'),
    ).not.toContain(ADMIN_TOKEN);
    expect(await page.evaluate('document.cookie')).toBe('');
    complaints.length = 0;
  });

  it('shows the figures of /api/status after known traffic', async () => {
    for (let at = 0; at < 10; at++) {
      const cookie = await world.login(`person-${at}`);
      await world.call('/me', { cookie, headers: { origin: ORIGIN, 'x-client-version': `4.${at % 2}` } });
      if (at >= 4) continue;
      const bearer = await world.token(cookie);
      for (let time = 0; time < 4; time++) await world.call('/me', { bearer });
    }
    // 10 with a session, 4 exchanges of one, 16 with a token: once the instance has told Redis.
    await expect.poll(async () => JSON.stringify(await api('/api/status')), { timeout: 15_000 }).toContain('"lastHour":{"session":14,"jwt":16}');
    await expect.poll(async () => (await row('clients', 'web'))[2]).toMatch(/53 % of 30/);
    const [stage, , , people, versions] = await row('clients', 'web');
    expect(stage).toMatch(/dual[\s\S]*jwt-preferred/);
    expect(people).toBe('4 of 10 with a token');
    expect(versions).toMatch(/4\.0: [\s\S]*4\.1: |4\.1: [\s\S]*4\.0: /);
    expect(await page.locator('#sentence').innerText()).toBe(String((await api('/api/status'))['sentence']));
    expect(await page.locator('#sentence').innerText()).toBe('Nobody is being refused. Nothing needs you.');
    expect(await page.locator('#checklists .card', { hasText: 'web → jwt-preferred' }).innerText()).toMatch(
      /exchange[\s\S]*4 of 4 succeeded in 24 h[\s\S]*What if: at jwt-preferred[\s\S]*200 by token: 4 people[\s\S]*200 and a nudge: 6 people[\s\S]*6 people would exchange/,
    );
  });

  it('draws the share over time', async () => {
    await page.selectOption('#span', 'hour');
    await page.getByText('web: 16 of 30 requests by token, 53 %').waitFor();
    expect(await page.locator('.chart canvas').count()).toBeGreaterThan(0);
  });

  it('stops moving by one button and a reason, and tells of it live; the exchange is refused until it is released', async () => {
    await page.click('#stop');
    await page.fill('#clamp-why', 'the on-call of tonight is asleep');
    await page.keyboard.press('Enter');
    await page.locator('#clamps tbody tr', { hasText: 'everybody' }).waitFor();
    expect(await row('clamps', 'everybody')).toEqual(
      expect.arrayContaining(['session-only', 'the operator', 'the on-call of tonight is asleep', 'released by hand']),
    );
    const cookie = await world.login('alice');
    const refused = await world.exchange(cookie);
    expect([refused.status, await refused.json()]).toEqual([400, expect.objectContaining({ stage: 'session-only', reason: 'operator' })]);
    await page.locator('#events li', { hasText: 'stage.clamped' }).first().waitFor();

    await page.locator('#clamps button').click();
    await page.fill('#clamp-why', 'awake again');
    await page.keyboard.press('Enter');
    await page.getByText('Nobody is held back.').waitFor();
    expect((await world.exchange(cookie)).status).toBe(200);
    expect(await page.locator('#events li', { hasText: 'stage.released' }).first().innerText()).toContain('awake again');
  });

  it('sets a clamp on one client for a time, by keyboard alone, and says how many it is for', async () => {
    await page.focus('#clamp');
    await page.keyboard.press('Enter');
    expect(
      await page.evaluate(() => ['whom', 'stage', 'for'].map((name) => document.querySelector<HTMLSelectElement>(`#clamp-${name}`)?.value)),
    ).toEqual(['', 'session-only', '7200']);
    await page.selectOption('#clamp-whom', { label: 'client web' });
    await page.selectOption('#clamp-stage', 'shadow');
    await page.selectOption('#clamp-for', '1800');
    await page.getByText(/people \(seen in ten minutes\) and .* requests a minute are above it now/).waitFor();
    await page.focus('#clamp-why');
    await page.keyboard.type('looking into roles');
    await page.keyboard.press('Enter');
    await page.locator('#clamps tbody tr', { hasText: 'client web' }).waitFor();
    const status = await api('/api/status');
    expect(status['clamps']).toEqual([
      expect.objectContaining({ selector: { on: 'client', name: 'web' }, stage: 'shadow', until: expect.any(Number) }),
    ]);
    await page.locator('#clamps button').click();
    await page.fill('#clamp-why', 'done');
    await page.keyboard.press('Enter');
    await page.getByText('Nobody is held back.').waitFor();
  });

  it('fits 360 pixels, light and dark, without scrolling sideways', async () => {
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width: 360, height: 780 });
      // The charts are drawn anew for the width that there is now.
      await expect.poll(async () => await page.evaluate('document.documentElement.scrollWidth <= document.documentElement.clientWidth')).toBe(true);
    }
    await page.setViewportSize({ width: 1280, height: 900 });
  });

  it('has a name for everything that can be reached by keyboard', async () => {
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll('button, select, input, a, [tabindex="0"]')]
        .filter((one) => one.checkVisibility())
        .filter((one) => {
          const labelled = one instanceof HTMLInputElement || one instanceof HTMLSelectElement ? (one.labels?.length ?? 0) > 0 : false;
          return !labelled && !one.getAttribute('aria-label') && !(one.textContent ?? '').trim();
        })
        .map((one) => one.outerHTML),
    );
    expect(nameless).toEqual([]);
  });

  it('says so where Redis does not answer, keeps what it showed, and goes on by itself', async () => {
    complaints.length = 0;
    const apart = await createWorld();
    const other = await startService(apart, (config) => ({ ...ofFleetOf(apart)(config), redis: { ...apart.config.redis, url: apart.store.url } }));
    const second = await browser.context.newPage();
    try {
      await second.goto(other.admin);
      // Signed in on one instance is signed in on all that have the same token.
      await second.locator('#instances tbody tr').first().waitFor();
      await apart.store.cut();
      await second.getByText(/Redis does not answer this instance; trying again\. What is shown is .* old\./).waitFor();
      expect(await second.locator('#instances tbody tr').count()).toBeGreaterThan(0);
      await apart.store.restore();
      await expect.poll(async () => await second.locator('#away').isVisible(), { timeout: 15_000 }).toBe(false);
    } finally {
      await second.close();
      await other.stop();
      await apart.close();
    }
  });

  it('loads nothing from elsewhere, and its policy is never violated', async () => {
    const asked: string[] = [];
    page.on('request', (request) => asked.push(request.url()));
    await page.reload();
    await page.locator('#clients table').waitFor();
    await page.locator('.chart canvas').first().waitFor();
    expect(asked.filter((url) => !url.startsWith(`${service.admin}/`))).toEqual([]);
    expect(complaints).toEqual([]);
    const { headers } = await fetch(service.admin);
    expect(headers.get('content-security-policy')).toMatch(/default-src 'none'; script-src 'self'; style-src 'self'/);
    expect(headers.get('content-security-policy')).not.toContain('unsafe');
  });

  it('is signed out by its button', async () => {
    await page.click('#sign-out');
    await page.locator('#sign-in').waitFor();
    await page.reload();
    await page.locator('#sign-in').waitFor();
    expect(await page.locator('#console').isVisible()).toBe(false);
  });
});
