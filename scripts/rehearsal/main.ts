import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { describeMachine, readMachine } from '../lib/machine.js';
import { createCookieApp, createLibraryApp, createOauthApp } from './apps.js';
import { Ledger, totalOf } from './ledger.js';
import { createLegacyLogins } from './legacy.js';
import { ACCESS_SECONDS, ADMIN_TOKEN, openPlace, type Place } from './place.js';
import { createRandom } from './random.js';
import { type Report, toHtml, toTable, verdictOf } from './report.js';
import { type Scene, writeScript } from './script.js';
import { loadStaging, type Staging } from './staging.js';
import { createVisitor, type Visitor } from './visitor.js';

const options = new Command('scripts/drill')
  .description(
    'Rehearses a migration with everything that can go wrong: real Redis, nginx, three bridges, a legacy app, many clients. Loopback only.',
  )
  .option('--clients <n>', 'how many (1000; --short: 150)', whole)
  .option('--seed <n>', 'repeats a run: who is who, when, and whom it hits', whole)
  .option('--short', 'every fault, fewer clients and less time: under 5 minutes')
  .option('--step <seconds>', 'how long each step and fault is watched (12; --short: 3)', whole)
  .option('--no-faults', 'with --config: only clients, against a staging of your own')
  .option('--config <file>', 'with --no-faults: where that is, and with which sessions (docs/drill.md)')
  .option('--seconds <n>', 'with --config: for how long (300)', whole)
  .option('--keep', 'the product stays up afterwards, until Ctrl-C, for a look at the console')
  .option('--out <directory>', 'where drill.html and drill.json go', 'drill-results')
  .parse()
  .opts<{
    clients?: number;
    seed?: number;
    short?: true;
    step?: number;
    faults: boolean;
    config?: string;
    seconds?: number;
    keep?: true;
    out: string;
  }>();

const seed = options.seed ?? Math.floor(Math.random() * 1e6);
const size = options.clients ?? (options.short ? 150 : 1000);
const stepMs = (options.step ?? (options.short ? 3 : 12)) * 1000;
const thinkMs = options.short ? 1500 : 3500;
const brokenMs = options.short ? 2000 : 6000;
/** Of all visits of those who may. */
const LOGOUTS = options.short ? 0.015 : 0.004;
/** So long after a fault what was ended is ended everywhere. */
const CALM_MS = 3000;

const random = createRandom(seed);
const ledger = new Ledger();

try {
  if ((options.config === undefined) !== options.faults)
    throw new Error('a staging of your own gets no faults: --no-faults --config FILE, both of them');
  if (options.config === undefined) await rehearse();
  else await rehearseStaging(loadStaging(options.config));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}

async function rehearse(): Promise<void> {
  say(`seed ${seed}, ${size} clients; starting Redis, nginx, LaunchDarkly's protocol, the legacy app and three bridges`);
  const place = await openPlace();
  const interrupted = new AbortController();
  let isStopped = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      isStopped = true;
      interrupted.abort();
    });
  const visitors: Visitor[] = [];
  const consoles = place.bridges.map(({ admin }) => admin).join(', ');
  say(`the console, while it runs: ${consoles}, with the token ${ADMIN_TOKEN}`);
  try {
    const scenes = writeScript({ place, random: random.fork(), brokenMs });
    let faultEndedAt = Number.NEGATIVE_INFINITY;
    let isFault = false;
    let hiddenUntil = 0;
    const calm = async () => {
      do await sleep(CALM_MS);
      while (!interrupted.signal.aborted && (isFault || performance.now() - faultEndedAt < CALM_MS));
    };
    const legacy = createLegacyLogins(place.legacy, random.fork());
    for (let n = 0; n < size; n++)
      visitors.push(
        createVisitor({
          ...whoIs(n),
          name: `person-${n}`,
          subject: `u-person-${n}`,
          url: place.url,
          thinkMs,
          logoutRate: () => (isFault ? 0 : LOGOUTS),
          legacyMayLogOut: () => performance.now() > hiddenUntil,
          legacy,
          calm,
          accessSeconds: ACCESS_SECONDS,
          random: random.fork(),
          ledger,
        }),
      );
    const ended = Promise.all(visitors.map(({ done }) => done));
    ended.catch(() => interrupted.abort());
    for (const scene of scenes) {
      if (interrupted.signal.aborted) break;
      if (scene.hidesLogouts) hiddenUntil = Number.POSITIVE_INFINITY;
      isFault = scene.fault;
      await play(scene);
      if (scene.fault) faultEndedAt = performance.now();
      isFault = false;
      if (scene.hidesLogouts) hiddenUntil = performance.now() + (ACCESS_SECONDS + 5) * 1000;
    }
    ledger.begin('settling', false);
    for (const visitor of visitors) visitor.stop();
    await Promise.race([ended, new Promise((resolve) => interrupted.signal.addEventListener('abort', resolve))]);
    if (!finish(interrupted.signal.aborted)) writeLogs(place);
    if (options.keep && !interrupted.signal.aborted) {
      say(`still up, until Ctrl-C: the console is at ${consoles}, with the token ${ADMIN_TOKEN}`);
      await new Promise((resolve) => interrupted.signal.addEventListener('abort', resolve));
    }
  } catch (error) {
    finish(true);
    writeLogs(place);
    // Ctrl-C ends Redis and the bridges as well: what fails after it is no news.
    if (!isStopped) throw error;
  } finally {
    for (const visitor of visitors) visitor.stop();
    await place.close();
  }
}

/** What the bridges have logged, beside the report of a run that has failed. */
function writeLogs({ bridges }: Place): void {
  const files = bridges.map((bridge) => {
    const file = join(options.out, `${bridge.name}.log`);
    writeFileSync(file, `${bridge.log()}\n`);
    return file;
  });
  process.stdout.write(`${files.join(', ')}\n`);
}

/** What happens does so at a moment that the seed decides; before and after it is watched. */
async function play(scene: Scene): Promise<void> {
  const counts = ledger.begin(scene.title, scene.fault);
  const before = scene.fault ? random.next() * 0.3 * stepMs : 0;
  await sleep(before);
  const progress = setInterval(() => {
    if (process.stderr.isTTY) process.stderr.write(`\r${line(counts.title, counts.requests)}`);
  }, 500);
  try {
    await scene.play();
    await sleep(stepMs - before);
  } finally {
    clearInterval(progress);
    if (process.stderr.isTTY) process.stderr.write('\r');
    const wrong = counts.lockouts + counts.wrongPrincipals + counts.staleLogins;
    say(line(scene.fault ? `! ${counts.title}` : counts.title, counts.requests) + (wrong > 0 ? `, ${wrong} WRONG` : ''));
  }
}

function line(title: string, requests: number): string {
  return `${title.padEnd(34)} ${String(requests).padStart(7)} requests`;
}

/** Two thirds on the library, of several versions; some on an OAuth library; some that never learned. */
function whoIs(n: number) {
  if (n % 20 < 13) return { create: createLibraryApp, version: ['4.2.0', '4.1.0', '3.9.0'][n % 3] ?? '4.2.0' };
  return n % 20 < 16 ? { create: createOauthApp, version: '1.0' } : { create: createCookieApp, version: '2.1' };
}

async function rehearseStaging({ url, cookies, clientId, headers }: Staging): Promise<void> {
  const seconds = options.seconds ?? 300;
  say(`${cookies.length} sessions against ${url} for ${seconds} seconds; nothing is broken, nobody is logged out`);
  ledger.begin('load', false);
  let stopped = false;
  const visits = cookies.map(async (value, n) => {
    const app = createLibraryApp(
      { url, version: '4.2.0', cookie: { value }, fetch: watched() },
      { clientId, headers: { 'x-client-id': clientId, ...headers } },
    );
    while (!stopped) {
      const answer = await app.ask().catch(() => undefined);
      if (answer?.status === 401) ledger.violated('lockouts', `session ${n + 1} of the file: 401`);
      await sleep(thinkMs * (0.5 + random.next()));
    }
  });
  process.once('SIGINT', () => {
    stopped = true;
  });
  for (const end = Date.now() + seconds * 1000; Date.now() < end && !stopped; ) await sleep(200);
  stopped = true;
  await Promise.all(visits);
  finish(false, cookies.length);
}

/** Counts what one client of a staging is answered. */
function watched(): typeof fetch {
  let failingSince: number | undefined;
  return async (input, init) => {
    const request = new Request(input, init);
    const at = performance.now();
    const answer = await fetch(request);
    ledger.answered(answer.status, answer.ok ? (request.headers.has('authorization') ? 'jwt' : 'session') : '');
    if (answer.status >= 500) failingSince ??= at;
    else if (failingSince !== undefined) {
      ledger.recovered(failingSince);
      failingSince = undefined;
    }
    return answer;
  };
}

/** Writes the report, and says whether the drill has passed. */
function finish(wasInterrupted: boolean, clients = size): boolean {
  const { lockouts, wrongPrincipals, staleLogins, requests } = totalOf(ledger.steps);
  const passed = !wasInterrupted && requests > 0 && lockouts + wrongPrincipals + staleLogins === 0;
  const report: Report = {
    seed,
    clients,
    machine: describeMachine(readMachine()),
    seconds: ledger.elapsed,
    passed,
    steps: ledger.steps,
    perSecond: ledger.seconds,
    violations: ledger.notes,
  };
  mkdirSync(options.out, { recursive: true });
  writeFileSync(join(options.out, 'drill.html'), toHtml(report));
  writeFileSync(join(options.out, 'drill.json'), `${JSON.stringify(report, null, 1)}\n`);
  process.stdout.write(`\n${toTable(report)}\n\n`);
  for (const { at, step, kind, told } of report.violations.slice(0, 20)) process.stdout.write(`${at} s, ${step}: ${kind}: ${told}\n`);
  process.stdout.write(
    `${wasInterrupted ? 'Broken off: that proves nothing.' : verdictOf(report)}\n${options.out}/drill.html, ${options.out}/drill.json\n`,
  );
  process.exitCode = passed ? 0 : 1;
  return passed;
}

function say(what: string): void {
  process.stderr.write(`${String(Math.round(ledger.elapsed)).padStart(4)} s  ${what}\n`);
}

function whole(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('a whole number');
  return value;
}
