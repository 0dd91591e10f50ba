import type { Config } from '../config/config.js';
import { type Announcement, type GuardrailWindow, nameOfInstance, namesOf } from '../fleet/announcement.js';
import { type Drift, describeDrift, describeGroup, findDrift } from '../fleet/drift.js';
import { FORMS } from '../fleet/stored-forms.js';
import type { DeniedKey } from '../keys/deny-list.js';
import type { StoredKey } from '../keys/jwks.js';
import { type KeyHold, startsAt, whatHolds } from '../keys/rotation.js';
import { type Clamp, idOf, nameOfSelector } from '../rollout/clamp.js';
import type { Lately } from '../telemetry/lately.js';

export interface StatusInput {
  readonly config: Pick<Config, 'clients' | 'rollout' | 'tokens' | 'keys'>;
  readonly announcements: readonly Announcement[];
  /** How many announcements carry another MAC. */
  readonly strangers: number;
  readonly keys: readonly StoredKey[];
  readonly denied: readonly DeniedKey[];
  readonly clamps: readonly Clamp[];
  /** What of Redis cannot be used or understood here, a sentence each. */
  readonly blocked: readonly string[];
  /** The fleet secret that release 0.1 knows, where it is here. */
  readonly firstSecret: string | undefined;
  /** Whether what decides stands under another one. */
  readonly isNamed: boolean;
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
  readonly hold?: KeyHold;
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
  /** Name of the fleet secret that it writes with; absent: of a release that knows one only. */
  readonly writes?: string;
}

/** How the instances of one release fare, of the last minutes. */
export interface ReleaseStatus {
  readonly version: string;
  /** Names of its instances. */
  readonly instances: readonly string[];
  /** Absent: this release does not announce it, or nothing came. */
  readonly lately?: Lately;
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
  /** How many different ones there are, of those that say what they are configured with. */
  readonly configurations: number;
  readonly cohorts: readonly CohortStatus[];
  readonly clamps: readonly ClampStatus[];
  readonly keys: readonly KeyStatus[];
  readonly windows: readonly GuardrailWindow[];
  readonly releases: readonly ReleaseStatus[];
  /** Settings that are not the same on all live instances. */
  readonly drift: readonly Drift[];
  /** Whether instances of the last release can still be started on this Redis, and why not. */
  readonly lastRelease: { readonly canStart: boolean; readonly why?: string };
}

/** With the name that `release` takes. */
export type ClampStatus = Clamp & { readonly id: string };

/** Later than this, revocations by others arrive late. */
const LATE_SECONDS = 5;

export function composeStatus(input: StatusInput): FleetStatus {
  const { announcements, clamps, nowMs } = input;
  const instances = announcements.map((one) => toInstance(one, nowMs));
  return {
    at: nowMs,
    problems: describeProblems(input, instances),
    instances,
    configurations: Math.max(1, new Set(announcements.flatMap(({ settings, fingerprint }) => (settings ? [fingerprint] : []))).size),
    cohorts: toCohorts(input),
    clamps: clamps.map((clamp) => ({ ...clamp, id: idOf(clamp) })),
    keys: toKeys(input),
    windows: toWindows(announcements),
    releases: toReleases(announcements),
    drift: driftOf(announcements),
    lastRelease: judgeLastRelease(input),
  };
}

function toInstance(one: Announcement, nowMs: number): InstanceStatus {
  const { instance, host, version, signs, signing, flags, fingerprint, eventsReadAt, writes } = one;
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
    ...(writes === undefined ? {} : { writes }),
  };
}

function driftOf(announcements: readonly Announcement[]): Drift[] {
  const nameOf = namesOf(announcements);
  return findDrift(announcements.map((one) => ({ name: nameOf(one), settings: one.settings })));
}

function toReleases(announcements: readonly Announcement[]): ReleaseStatus[] {
  const nameOf = namesOf(announcements);
  const versions = [...new Set(announcements.map(({ version }) => version))].sort((one, other) => one.localeCompare(other, 'en', { numeric: true }));
  return versions.map((version) => {
    const its = announcements.filter((one) => one.version === version);
    const told = its.flatMap(({ lately }) => lately ?? []);
    return { version, instances: its.map(nameOf), ...(told.length > 0 ? { lately: sumLately(told) } : {}) };
  });
}

/** Times of the slowest: one slow instance is what somebody looks for. */
function sumLately(all: readonly Lately[]): Lately {
  const sum = (of: (one: Lately) => number) => all.reduce((total, one) => total + of(one), 0);
  return {
    requests: sum(({ requests }) => requests),
    unavailable: sum(({ unavailable }) => unavailable),
    faults: sum(({ faults }) => faults),
    p50Ms: Math.max(...all.map(({ p50Ms }) => p50Ms)),
    p99Ms: Math.max(...all.map(({ p99Ms }) => p99Ms)),
  };
}

/** It reads what stands under the first secret only, and the form that this release writes. */
function judgeLastRelease({ announcements, firstSecret, isNamed }: StatusInput): FleetStatus['lastRelease'] {
  const other = announcements.find(({ writes }) => writes !== undefined && writes !== firstSecret);
  if (other) return { canStart: false, why: `the fleet writes with the secret ${other.writes}, and release 0.1 knows the first one only` };
  if (isNamed) return { canStart: false, why: 'keys and clamps stand under a second fleet secret, and release 0.1 knows the first one only' };
  const later = announcements.find(({ reads = 1 }) => reads - 1 > FORMS.writes);
  if (later) return { canStart: false, why: `${later.host} (${later.version}) writes what release 0.1 does not read` };
  const several = announcements.some(({ opens = [] }) => opens.length > 1);
  return several ? { canStart: false, why: 'fleetSecretFile holds several secrets, and release 0.1 takes one only' } : { canStart: true };
}

function describeProblems({ announcements, strangers, clamps, blocked, config }: StatusInput, instances: readonly InstanceStatus[]): string[] {
  if (announcements.length === 0) {
    const none =
      strangers === 0 ? 'no instance is alive on this Redis' : `no instance with this fleet secret is alive, and ${strangers} with another`;
    return [...blocked, blocked.length === 0 ? none : `${none}, or none can announce itself`];
  }
  const said = announcements.flatMap((one) => one.problems.map((problem) => `${nameOfInstance(one)}: ${problem}`));
  const late = instances.filter(({ lagSeconds }) => lagSeconds === undefined || lagSeconds > LATE_SECONDS);
  const releases = toReleases(announcements);
  const without = (state: Announcement['flags']) => announcements.filter(({ flags }) => flags === state).map(nameOfInstance);
  const source = config.rollout.flags?.file === undefined ? 'the flag source is away' : 'the flags file is broken';
  const [lastKnown, none] = config.rollout.flags ? [without('last-known'), without('none')] : [[], []];
  return [
    ...new Set([
      ...said,
      ...late.map((one) => `${nameOfInstance(one)}: does not hear the event stream: revocations by others arrive late`),
      ...blocked,
      ...(releases.length > 1
        ? [
            `${releases.length} releases are running: ${releases.map(({ version, instances: names }) => `${version} on ${describeGroup(names)}`).join(', ')}`,
          ]
        : []),
      ...describeDrift(driftOf(announcements)),
      ...(lastKnown.length > 0 ? [`${source}: the last known flags are in force on ${lastKnown.join(', ')}`] : []),
      ...(none.length > 0 ? [`${source} and nothing is known of it: ${config.rollout.defaultStage} on ${none.join(', ')}`] : []),
      ...clamps.filter(({ by }) => by === 'guardrail').map(({ selector, why }) => `the guardrail holds ${nameOfSelector(selector)}: ${why}`),
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
