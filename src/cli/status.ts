import { type Overview, readOverview } from '../console/overview.js';
import type { FleetStatus } from '../console/status.js';
import { nameOfInstance } from '../fleet/announcement.js';
import { describeGroup } from '../fleet/drift.js';
import { keyLines } from './keys.js';
import { print } from './print.js';
import { type Room, withRoom } from './room.js';
import { count, short, span, table, wrap } from './words.js';

export interface StatusOptions {
  readonly config: string;
  readonly json?: boolean;
  readonly watch?: boolean;
}

const WATCH_MS = 2000;

/** `crossfade status`: the whole of it on one page; with `--watch` until it is interrupted. */
export async function status({ config: path, json = false, watch = false }: StatusOptions): Promise<void> {
  await withRoom({ config: path, json }, async (room) => {
    for (;;) {
      // A watch goes on while Redis is away: that is when somebody looks.
      const found = await readOverview(room).catch((error: unknown) => {
        if (!watch) throw error;
        print.error('Redis does not answer; trying again');
        return undefined;
      });
      if (found && json) print.json(found);
      else if (found) {
        if (watch && process.stdout.isTTY) process.stdout.write('\u001b[2J\u001b[H');
        for (const line of pageOf(found, room)) print.line(line);
      }
      if (!watch) return;
      await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    }
  });
}

function pageOf(found: Overview, room: Pick<Room, 'config'>): string[] {
  return [
    ...headline(found),
    '',
    'COHORTS (requests of the last minute)',
    ...table(found.cohorts.flatMap(cohortRows)),
    '',
    'CLAMPS',
    ...(found.clamps.length === 0 ? ['  none'] : found.clamps.flatMap((clamp) => describeClamp(clamp, found.at))),
    '',
    'KEYS',
    ...keyLines(found, room).map((line) => `  ${line}`),
    '',
    'FLEET',
    ...table([
      ['  HOST', 'UP', 'SIGNS', 'HEALTH', 'FLAGS', 'LAG', 'CLOCK', 'CONFIG'],
      ...found.instances.map((one) => [
        `  ${nameOfInstance(one)}`,
        span(one.upSeconds * 1000),
        one.signs === undefined ? 'nothing' : short(one.signs),
        one.signing,
        one.flags,
        one.lagSeconds === undefined ? 'never' : `${one.lagSeconds} s`,
        `${one.clockOffSeconds > 0 ? '+' : ''}${one.clockOffSeconds} s`,
        one.fingerprint.slice(0, 6),
      ]),
    ]),
    '',
    'RELEASES (last 5 minutes)',
    ...found.releases.flatMap((release) => releaseLines(release)),
    ...wrap(describeLastRelease(found.lastRelease), '  '),
    '',
    `GUARDRAIL (last ${room.config.rollout.guardrail.windowSeconds} s)`,
    ...(found.windows.length === 0
      ? ['  nothing to judge']
      : table(
          found.windows.map(({ cohort, of, requests, failures, subjects }) => [
            `  ${cohort}`,
            of,
            `${failures} of ${requests} failed`,
            count(subjects, 'person', 'people'),
          ]),
        )),
  ];
}

function releaseLines({ version, instances, lately }: FleetStatus['releases'][number]): string[] {
  const figures = lately
    ? `${count(lately.requests, 'request')}, ${lately.unavailable} answered 503, ${count(lately.faults, 'own fault')}; exchange and refresh: half within ${lately.p50Ms} ms, 99 % within ${lately.p99Ms} ms`
    : 'no figures: nothing came, or this release does not announce them';
  return [`  ${version} on ${describeGroup(instances)}`, ...wrap(figures, '    ')];
}

function describeLastRelease({ canStart, why }: FleetStatus['lastRelease']): string {
  return canStart ? 'The last release can still be started on this Redis.' : `The last release can no longer be started: ${why}.`;
}

function headline({ problems, instances }: FleetStatus): string[] {
  if (problems.length === 0) return [`${instances.length} live, nothing needs you.`];
  return [
    `${instances.length} live, ${problems.length === 1 ? '1 thing needs' : `${problems.length} things need`} you:`,
    ...problems.flatMap((problem) => wrap(problem, '  ')),
  ];
}

/** A line for each stage that its requests got. */
function cohortRows({ cohort, client, requests, stages }: FleetStatus['cohorts'][number]): string[][] {
  const [first = '', ...more] = stages.map((one) => `${one.stage} (${one.reason}) ${Math.round((100 * one.requests) / requests)} %`);
  return [[`  ${cohort}`, cohort === client ? '' : `of ${client}`, String(requests), first], ...more.map((stage) => ['', '', '', stage])];
}

function describeClamp({ id, text, selector, stage, by, why, at, until }: FleetStatus['clamps'][number], nowMs: number): string[] {
  const whom = 'name' in selector ? `${selector.on} ${selector.name}` : 'everybody';
  const unread = text === undefined ? [] : wrap(`of a later release, and not understood in all parts: crossfade release ${id} ends it`, '    ');
  const till = until === undefined ? '' : `, for another ${span(until - nowMs)}`;
  return [`  ${whom} at most ${stage}, by the ${by} ${span(nowMs - at)} ago${till}`, ...wrap(why, '    '), ...unread];
}
