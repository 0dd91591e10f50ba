import type { Config } from '../config/config.js';
import type { Announcement, GuardrailWindow } from '../fleet/announcement.js';
import type { DeniedKey } from '../keys/deny-list.js';
import type { StoredKey } from '../keys/jwks.js';
import { type Hold, startsAt, whatHolds } from '../keys/rotation.js';
import type { Clamp } from '../rollout/clamps.js';

export interface StatusInput {
  readonly config: Pick<Config, 'clients' | 'rollout' | 'tokens' | 'keys'>;
  readonly announcements: readonly Announcement[];
  /** How many announcements carry another MAC. */
  readonly strangers: number;
  readonly keys: readonly StoredKey[];
  readonly denied: readonly DeniedKey[];
  readonly clamps: readonly Clamp[];
  /** By Redis' clock. */
  readonly nowMs: number;
}

/** A key as the whole fleet has it. Times in ms since the epoch. */
export interface KeyStatus {
  readonly kid: string;
  readonly phase: 'next' | 'active' | 'retiring' | 'revoked' | 'retired';
  /** Names of the files that hold it. */
  readonly files: readonly string[];
  /** How many live instances sign with it, and verify it. */
  readonly signedBy: number;
  readonly verifiedBy: number;
  readonly firstSeenAt?: number;
  /** From when it signs, if it does: the newest does. */
  readonly startsAt?: number;
  readonly lastSignedAt?: number;
  /** What keeps it from signing. */
  readonly hold?: Hold;
  /** Until when tokens that it signed may live. */
  readonly retiringUntil?: number;
  readonly why?: string;
}

export interface InstanceStatus {
  readonly instance: string;
  readonly host: string;
  readonly version: string;
  readonly upSeconds: number;
  readonly signs?: string;
  readonly signing: Announcement['signing'];
  readonly flags: Announcement['flags'];
  /** How long ago it last heard the event stream; absent: never. */
  readonly lagSeconds?: number;
  readonly clockOffSeconds: number;
  readonly fingerprint: string;
}

export interface CohortStatus {
  readonly cohort: string;
  readonly client: string;
  /** Of the last minute, on all instances. */
  readonly requests: number;
  readonly stages: readonly { readonly stage: string; readonly reason: string; readonly requests: number }[];
}

/** What operators see of the whole: composed of what the instances announce and what Redis keeps. */
export interface FleetStatus {
  readonly at: number;
  /** What somebody should look at, a sentence each. */
  readonly problems: readonly string[];
  readonly instances: readonly InstanceStatus[];
  readonly cohorts: readonly CohortStatus[];
  readonly clamps: readonly Clamp[];
  readonly keys: readonly KeyStatus[];
  readonly windows: readonly GuardrailWindow[];
}

/** Later than this, revocations by others arrive late. */
const LATE_SECONDS = 5;

export function composeStatus(input: StatusInput): FleetStatus {
  const { announcements, clamps, nowMs } = input;
  const instances = announcements.map((one) => toInstance(one, nowMs));
  return {
    at: nowMs,
    problems: describeProblems(input, instances),
    instances,
    cohorts: toCohorts(input),
    clamps,
    keys: toKeys(input),
    windows: toWindows(announcements),
  };
}

function toInstance(one: Announcement, nowMs: number): InstanceStatus {
  const { instance, host, version, signs, signing, flags, fingerprint, eventsReadAt } = one;
  return {
    instance,
    host,
    version,
    upSeconds: Math.max(0, Math.round((nowMs - one.startedAt) / 1000)),
    ...(signs === undefined ? {} : { signs }),
    signing,
    flags,
    ...(eventsReadAt === undefined ? {} : { lagSeconds: Math.max(0, Math.round((one.at + one.clockOffMs - eventsReadAt) / 1000)) }),
    clockOffSeconds: Math.round(one.clockOffMs / 100) / 10,
    fingerprint,
  };
}

function describeProblems({ announcements, strangers, clamps, config }: StatusInput, instances: readonly InstanceStatus[]): string[] {
  if (announcements.length === 0) {
    return [strangers === 0 ? 'no instance is alive on this Redis' : `no instance with this fleet secret is alive, and ${strangers} with another`];
  }
  const said = announcements.flatMap((one) => one.problems.map((problem) => `${nameOfInstance(one)}: ${problem}`));
  const late = instances.filter(({ lagSeconds }) => lagSeconds === undefined || lagSeconds > LATE_SECONDS);
  const fingerprints = new Set(announcements.map(({ fingerprint }) => fingerprint));
  const without = (state: Announcement['flags']) => announcements.filter(({ flags }) => flags === state).map(nameOfInstance);
  const source = config.rollout.flags?.file === undefined ? 'the flag source is away' : 'the flags file is broken';
  const [lastKnown, none] = config.rollout.flags ? [without('last-known'), without('none')] : [[], []];
  return [
    ...new Set([
      ...said,
      ...late.map((one) => `${nameOfInstance(one)}: does not hear the event stream: revocations by others arrive late`),
      ...(fingerprints.size > 1
        ? [`${fingerprints.size} different configurations are running: a deployment under way, or one that stopped half-way`]
        : []),
      ...(lastKnown.length > 0 ? [`${source}: the last known flags are in force on ${lastKnown.join(', ')}`] : []),
      ...(none.length > 0 ? [`${source} and nothing is known of it: ${config.rollout.defaultStage} on ${none.join(', ')}`] : []),
      ...clamps
        .filter(({ by }) => by === 'guardrail')
        .map(({ selector, why }) => `the guardrail holds ${selector.on === 'all' ? 'everybody' : selector.name}: ${why}`),
    ]),
  ];
}

/** All that are configured, and all that came. */
function toCohorts({ announcements, config }: StatusInput): CohortStatus[] {
  const configured = [
    ...config.rollout.cohorts.map(({ name, client }) => ({ cohort: name, client })),
    ...config.clients.map(({ id }) => ({ cohort: id, client: id })),
  ];
  const reports = announcements.flatMap(({ cohorts }) => cohorts);
  const known = [...configured, ...reports.map(({ cohort, client }) => ({ cohort, client }))];
  return known
    .filter(({ cohort }, at) => known.findIndex((one) => one.cohort === cohort) === at)
    .map(({ cohort, client }) => {
      const stages = new Map<string, { stage: string; reason: string; requests: number }>();
      for (const { stage, reason, requests } of reports.filter((one) => one.cohort === cohort).flatMap((one) => one.stages)) {
        const key = `${stage} ${reason}`;
        stages.set(key, { stage, reason, requests: (stages.get(key)?.requests ?? 0) + requests });
      }
      const all = [...stages.values()].sort((one, other) => other.requests - one.requests);
      return { cohort, client, requests: all.reduce((sum, { requests }) => sum + requests, 0), stages: all };
    });
}

function toKeys({ announcements, keys, denied, nowMs, config }: StatusInput): KeyStatus[] {
  const deniedKids = new Set(denied.map(({ kid }) => kid));
  const keepMs = 2 * config.tokens.accessTtlSeconds * 1000;
  const stored = keys.filter(({ jwk }) => !deniedKids.has(jwk.kid));
  const held = { stored, others: announcements, nowMs, publishMs: config.keys.publishSeconds * 1000 };
  const living = stored.map(({ jwk: { kid }, firstSeenAt, signedAt, lastSignedAt }): KeyStatus => {
    const files = announcements.flatMap((one) => one.keys.filter(({ jwk }) => jwk.kid === kid));
    const signedBy = announcements.filter(({ signs }) => signs === kid).length;
    const phase = signedBy > 0 ? 'active' : signedAt === undefined ? 'next' : 'retiring';
    const signsFrom = files.find((file) => file.signsFrom !== undefined)?.signsFrom;
    const hold = phase === 'next' ? whatHolds({ kid, ...(signsFrom === undefined ? {} : { signsFrom }) }, held) : undefined;
    return {
      kid,
      phase,
      files: [...new Set(files.flatMap(({ file }) => file ?? []))],
      startsAt:
        startsAt(signsFrom === undefined ? {} : { signsFrom }, { firstSeenAt, ...(signedAt === undefined ? {} : { signedAt }) }) ?? firstSeenAt,
      signedBy,
      verifiedBy: announcements.filter(({ verifies }) => verifies.includes(kid)).length,
      firstSeenAt,
      ...(lastSignedAt === undefined ? {} : { lastSignedAt }),
      ...(hold ? { hold } : {}),
      ...(phase === 'retiring' ? { retiringUntil: (lastSignedAt ?? signedAt ?? firstSeenAt) + keepMs } : {}),
    };
  });
  const order: readonly KeyStatus['phase'][] = ['active', 'next', 'retiring'];
  return [
    ...living.sort((one, other) => order.indexOf(one.phase) - order.indexOf(other.phase) || (other.firstSeenAt ?? 0) - (one.firstSeenAt ?? 0)),
    ...denied.map(
      ({ kid, how, why }): KeyStatus => ({
        kid,
        phase: how,
        files: [],
        signedBy: 0,
        verifiedBy: announcements.filter(({ verifies }) => verifies.includes(kid)).length,
        why,
      }),
    ),
  ];
}

function toWindows(announcements: readonly Announcement[]): GuardrailWindow[] {
  const windows = new Map<string, GuardrailWindow>();
  for (const one of announcements.flatMap((announcement) => announcement.windows)) {
    const key = `${one.of} ${one.cohort}`;
    const known = windows.get(key);
    const persons = [...new Set([...one.persons, ...(known?.persons ?? [])])];
    windows.set(key, {
      ...one,
      requests: one.requests + (known?.requests ?? 0),
      failures: one.failures + (known?.failures ?? 0),
      subjects: Math.max(one.subjects, known?.subjects ?? 0, persons.length),
      persons,
      failing: [...new Set([...one.failing, ...(known?.failing ?? [])])],
    });
  }
  return [...windows.values()].sort((one, other) => other.failures - one.failures || other.requests - one.requests);
}

/** Its machine, as short as a column is wide, and what tells it from others there. */
export function nameOfInstance({ host, instance }: Pick<Announcement, 'host' | 'instance'>): string {
  return `${host.length > 12 ? `…${host.slice(-11)}` : host}/${instance.slice(0, 4)}`;
}
