import { hostname } from 'node:os';
import type { Clock, FleetClock, RedisClock } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Announcement } from '../fleet/announcement.js';
import { watchClocks } from '../fleet/clock-watch.js';
import { digestSettings, fingerprintOf } from '../fleet/drift.js';
import { createFleet, type Fleet } from '../fleet/fleet.js';
import { describeStrangers } from '../fleet/store.js';
import { describeSkipped, FORMS } from '../fleet/stored-forms.js';
import type { Policy } from '../keys/agreement.js';
import { KeyRing } from '../keys/key-ring.js';
import { acceptsAudience, policyOf } from '../keys/rotation.js';
import { createSigning, type Signing } from '../keys/signing.js';
import { SigningStand } from '../keys/stand.js';
import type { Clamp } from '../rollout/clamp.js';
import type { Problems } from '../telemetry/problems.js';
import type { Tools } from '../telemetry/tools.js';
import { createIssuer, type IssueAccessToken } from '../tokens/access-token.js';
import { createProbe } from '../tokens/token-probe.js';
import { createVerifier, type Revocations, type VerifyBearer } from '../tokens/verify.js';
import { VERSION } from '../version.js';
import type { Control } from './stored.js';

export interface MembershipOptions extends Pick<Tools, 'random' | 'log' | 'audit' | 'metrics'> {
  readonly config: Config;
  /** Random, anew at each start. */
  readonly instance: string;
  readonly control: Pick<Control, 'fleet' | 'jwks' | 'denyList' | 'secrets' | 'deniedSecrets' | 'blocked'>;
  /** Whether an operator lets this instance act though it skips a release. */
  readonly isForced: boolean;
  readonly revocations: Revocations;
  /** A digest of the clamps that are in force here. */
  readonly clampsDigest: () => string;
  /** Clamps on cohorts that this configuration does not have. */
  readonly unknownClamps: () => readonly Clamp[];
  /** Names of the cookie secrets that verify nothing here any more. */
  readonly endedSecrets: () => readonly string[];
  /** What else of this instance needs an operator. */
  readonly problems: Pick<Problems, 'all'>;
  /** The time by Redis' clock, in ms. Rejects while Redis is away. */
  readonly fleetNowMs: () => Promise<number>;
  /** Has every instance read the fleet's keys again. Never rejects. */
  readonly tellKeys: () => void;
  /** That of this machine. */
  readonly clock: Clock;
  readonly fleetClock: FleetClock;
  readonly redisClock: RedisClock;
}

/** This instance as one of a fleet: what it signs and verifies with, and what it knows of the others. */
export interface Membership {
  readonly ring: KeyRing;
  readonly signing: Signing;
  readonly fleet: Fleet;
  /** Whether another live instance still gives tokens for an audience: this configuration may have lost it first. */
  readonly isTargetElsewhere: (audience: string) => boolean;
  /** Whether what does not open here may be of another live instance: one of another release, or with a secret that is not here. */
  readonly mayBeOfOthers: boolean;
  /** Why this instance must not act for the fleet, a sentence each. */
  readonly blocked: readonly string[];
  /** Whether a release lies between this instance and those that were there before it. */
  readonly hasSkipped: boolean;
  /** Takes the settings of the configuration as they are in its files now. */
  readonly readSettings: () => void;
  readonly issueAccessToken: IssueAccessToken;
  readonly verifyBearer: VerifyBearer;
  /** The same for a token that nobody will show again. */
  readonly verifyOnce: VerifyBearer;
  /** Reads who else is there, and which time it is. */
  meet(): Promise<void>;
  /** Once what holds cohorts is known: from then on it may sign. */
  start(): Promise<void>;
}

/** So long after a fleet secret has leaked, and while a file holds it, only keys are believed that some file holds. */
const DISTRUST_MS = 600_000;

export function createMembership(options: MembershipOptions): Membership {
  const { config, instance, control, revocations, fleetNowMs, tellKeys, random, clock, fleetClock, redisClock, ...tools } = options;
  const { issuer, audience } = config;
  const { accessTtlSeconds, expiryJitter, clockSkewSeconds } = config.tokens;
  const { secrets } = control;
  const targets = [...new Set([...audience, ...config.services.map((service) => service.audience)])];
  const policy = { issuer, audience, clockSkewSeconds };
  const ring = new KeyRing(() => clock.now());
  const stand = new SigningStand(ring);
  tools.metrics.buildInfo.set({ version: VERSION, reads: String(FORMS.reads) }, 1);
  let settings = digestSettings(secrets.names.settings, config.readWritten());

  const fleet = createFleet({
    ...tools,
    store: control.fleet,
    self: { instance, host: hostname(), version: VERSION, issuer, audience: [...audience], targets, reads: FORMS.reads },
    keys: (others) => announceKeys(stand, { issuer, audience }, others),
    state: (strangers) => ({
      signing: stand.state,
      problems: [...stand.problems, ...describeStrangers(strangers), ...options.problems.all],
      clamps: options.clampsDigest(),
      endedSecrets: [...options.endedSecrets()],
      opens: [...secrets.opens],
      writes: secrets.writes,
      denied: [...secrets.denied],
      fingerprint: fingerprintOf(settings),
      settings,
      unknownCohorts: options
        .unknownClamps()
        .flatMap(({ selector, scope }) => (selector.on === 'cohort' ? [{ name: selector.name, held: scope !== undefined }] : [])),
    }),
    fleetNowMs,
    nowMs: () => clock.now(),
    redisClock,
  });
  const clocks = watchClocks({ fleet, clock, fleetClock, skewMs: clockSkewSeconds * 1000, log: tools.log });
  const skipped = () => (options.isForced ? [] : describeSkipped(fleet.others, fleet.startedAt));
  const blocked = () => [...control.blocked, ...skipped()];
  const opensMore = ({ opens }: Announcement) => (opens ?? []).some((name) => !secrets.opens.includes(name));
  const issueAccessToken = createIssuer({ issuer, accessTtlSeconds, expiryJitter, clock: fleetClock, random });

  const signing = createSigning({
    ...tools,
    config: config.keys,
    stand,
    longestLifeSeconds: accessTtlSeconds,
    stored: control.jwks,
    denyList: control.denyList,
    fleet: fleet.view,
    blocked,
    trusted() {
      const hasLeaked =
        secrets.holdsRevoked || control.deniedSecrets.all.some(({ how, at }) => how === 'revoked' && Math.abs(clock.now() - at) < DISTRUST_MS);
      return hasLeaked ? new Set(fleet.others.flatMap(({ keys }) => keys.map(({ jwk }) => jwk.kid))) : undefined;
    },
    fleetNowMs,
    clockProblems: () => clocks.problems,
    probe: createProbe(policy, issueAccessToken, { now: () => fleetClock.now() }),
    tell: tellKeys,
    onPass: fleet.announceChanges,
  });
  fleet.onBeat(() => {
    clocks.look();
    // A key that waited may do so no longer, and what Redis has lost is written again.
    void signing.reload();
  });

  const verifying = {
    policy,
    fleetPolicies: () => signing.policies,
    // For as long as a token lives that was signed meanwhile.
    clocksDisagree: () => clocks.disagreedWithin(2 * accessTtlSeconds * 1000),
    keys: ring,
    clock: fleetClock,
    checked: (isGood: boolean) => tools.metrics.signatures.inc({ outcome: isGood ? 'good' : 'bad' }),
    revocations: {
      get wereRead() {
        // What was revoked includes keys.
        return revocations.wereRead && ring.fleetKeysRead;
      },
      whatEnded: revocations.whatEnded,
    },
  };
  const remember = { max: config.bearer.rememberedTokens, counted: (size: number) => tools.metrics.rememberedTokens.set(size) };
  return {
    ring,
    signing,
    get mayBeOfOthers() {
      return control.blocked.length > 0 || fleet.strangers > 0 || fleet.others.some((other) => other.version !== VERSION || opensMore(other));
    },
    get blocked() {
      return blocked();
    },
    get hasSkipped() {
      return skipped().length > 0;
    },
    readSettings() {
      settings = digestSettings(secrets.names.settings, config.readWritten());
    },
    isTargetElsewhere: (wanted) => fleet.others.some((other) => other.targets?.includes(wanted) || acceptsAudience(other, issuer, wanted)),
    fleet,
    issueAccessToken,
    verifyBearer: createVerifier({ ...verifying, remember }),
    verifyOnce: createVerifier(verifying),
    async meet() {
      await fleet.read();
      clocks.look();
    },
    async start() {
      await signing.start();
    },
  };
}

/** What an instance says of its keys, and of what it accepts. */
function announceKeys(
  { ring, signingKey, files, agreed }: SigningStand,
  own: Policy,
  others: readonly Announcement[],
): Pick<Announcement, 'keys' | 'verifies' | 'signs' | 'accepts'> {
  return {
    keys: ring.own.map(({ publicJwk: jwk, signsFrom }) => {
      const file = files.get(jwk.kid);
      return { jwk, ...(file === undefined ? {} : { file }), ...(signsFrom === undefined ? {} : { signsFrom }) };
    }),
    verifies: [...ring.kids],
    accepts: acceptedPolicies([own, ...agreed.policies], own, others),
    ...(signingKey ? { signs: signingKey.kid } : {}),
  };
}

/** Each audience by itself, and whole lists as the last release compares them: where this instance accepts all of a list, it says so. */
function acceptedPolicies(all: readonly Policy[], own: Policy, others: readonly Announcement[]): string[] {
  const single = all.flatMap(({ issuer, audience }) => audience.map((one) => ({ issuer, audience: [one] })));
  const accepted = new Set(single.map(policyOf));
  const lists = others.filter((other) => other.audience.every((one) => accepted.has(policyOf({ issuer: other.issuer, audience: [one] }))));
  return [...new Set([...[own, ...lists].map(policyOf), ...accepted])];
}
