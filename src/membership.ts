import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Clock } from './clock.js';
import type { Config } from './config/config.js';
import type { Control } from './control.js';
import { type Announcement, fingerprintOf } from './fleet/announcement.js';
import { createFleet, type Fleet } from './fleet/fleet.js';
import { KeyRing } from './keys/key-ring.js';
import { clockAgainstMost, policyOf } from './keys/rotation.js';
import { type Signing, startSigning } from './keys/signing.js';
import type { Audit } from './telemetry/audit.js';
import type { Log } from './telemetry/log.js';
import type { Metrics } from './telemetry/metrics.js';
import { createIssuer, type IssueAccessToken, type RandomSource } from './tokens/issue.js';
import { createProbe } from './tokens/probe.js';
import { createVerifier, type Revocations, type VerifyBearer } from './tokens/verify.js';

export interface MembershipOptions {
  readonly config: Config;
  readonly control: Pick<Control, 'fleet' | 'jwks' | 'denyList'>;
  readonly revocations: Revocations;
  /** What the others are told beside keys. */
  readonly describe: () => Pick<Announcement, 'flags' | 'clamps' | 'eventsReadAt' | 'cohorts' | 'windows'>;
  /** The time by Redis' clock, in ms. Rejects while Redis is away. */
  readonly fleetNowMs: () => Promise<number>;
  /** Has every instance read the fleet's keys again. Never rejects. */
  readonly tellKeys: () => void;
  /** Called every few seconds while Redis answers. */
  readonly onBeat: () => void;
  readonly random: RandomSource;
  readonly clock: Clock;
  readonly log: Log;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/** This instance as one of a fleet: what it signs and verifies with, and what it knows of the others. */
export interface Membership {
  readonly ring: KeyRing;
  readonly signing: Signing;
  readonly fleet: Fleet;
  readonly issueAccessToken: IssueAccessToken;
  readonly verifyBearer: VerifyBearer;
}

/** Reads who is there, and what keys there are, before it signs anything. It is announced by `fleet.start()`. */
export async function createMembership(options: MembershipOptions): Promise<Membership> {
  const { config, control, revocations, describe, fleetNowMs, tellKeys, onBeat, random, clock, log, audit, metrics } = options;
  const { issuer, audience } = config;
  const { accessTtlSeconds, expiryJitter, clockSkewSeconds } = config.tokens;
  const policy = { issuer, audience, clockSkewSeconds };
  let aheadMs = 0;
  // An instance whose clock is off must neither refuse what the others sign nor sign what they refuse: it goes by theirs.
  const fleetClock: Clock = { now: () => clock.now() - (Math.abs(aheadMs) > clockSkewSeconds * 1000 ? aheadMs : 0) };
  const issueAccessToken = createIssuer({ issuer, accessTtlSeconds, expiryJitter, clock: fleetClock, random });
  const ring = new KeyRing(() => clock.now());
  let signing: Signing | undefined;

  const fleet = createFleet({
    store: control.fleet,
    self: { instance: random.token(9), host: hostname(), version: VERSION, issuer, audience: [...audience], fingerprint: fingerprintOf(config) },
    keys() {
      const signs = signing?.signingKey()?.kid;
      return {
        verifies: [...ring.kids],
        accepts: [{ issuer, audience }, ...(signing?.policies ?? [])].map(policyOf),
        ...(signs === undefined ? {} : { signs }),
      };
    },
    describe() {
      const report = signing?.report();
      const files = signing?.files;
      return {
        ...describe(),
        keys: ring.own.map(({ publicJwk: jwk, signsFrom }) => {
          const file = files?.get(jwk.kid);
          return { jwk, ...(file === undefined ? {} : { file }), ...(signsFrom === undefined ? {} : { signsFrom }) };
        }),
        signing: report?.state ?? 'broken',
        problems: [...(report?.problems ?? []), ...describeStrangers(fleet.strangers)],
      };
    },
    fleetNowMs,
    nowMs: () => clock.now(),
    onBeat() {
      aheadMs = clockAgainstMost(fleet.clockOffMs ?? 0, fleet.others);
      // A key that waited may do so no longer, and what Redis has lost is written again.
      void signing?.reload();
      onBeat();
    },
    log,
    audit,
    metrics,
  });
  await fleet.read();
  aheadMs = clockAgainstMost(fleet.clockOffMs ?? 0, fleet.others);

  signing = await startSigning({
    config: config.keys,
    ring,
    longestLifeSeconds: accessTtlSeconds,
    stored: control.jwks,
    denyList: control.denyList,
    fleet: fleet.view,
    fleetNowMs,
    clockOffMs: () => (fleet.others.length > 0 ? aheadMs : (fleet.clockOffMs ?? 0)),
    clockSkewSeconds,
    probe: createProbe(policy, issueAccessToken, fleetClock),
    tell: tellKeys,
    onPass: fleet.announceChanges,
    log,
    audit,
    metrics,
  });
  return {
    ring,
    signing,
    fleet,
    issueAccessToken,
    verifyBearer: createVerifier({
      policy,
      fleetPolicies: () => signing?.policies ?? [],
      keys: ring,
      clock: fleetClock,
      revocations: {
        get wereRead() {
          // What was revoked includes keys.
          return revocations.wereRead && ring.fleetKeysRead;
        },
        whatEnded: revocations.whatEnded,
      },
    }),
  };
}

/** @param strangers how many announcements carry another MAC. */
export function describeStrangers(strangers: number): string[] {
  if (strangers === 0) return [];
  return [`${strangers} announcements under these keys in Redis carry another MAC: instances with another fleet secret, or somebody else's hand`];
}

const { version: VERSION }: { version: string } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
