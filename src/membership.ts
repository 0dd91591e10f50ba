import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Clock } from './clock.js';
import type { Config } from './config/config.js';
import type { Control } from './control.js';
import { type Announcement, fingerprintOf } from './fleet/announcement.js';
import { createFleet, type Fleet } from './fleet/fleet.js';
import { KeyRing } from './keys/key-ring.js';
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
  readonly describe: () => Pick<Announcement, 'flags' | 'eventsReadAt' | 'cohorts' | 'windows'>;
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
  const issueAccessToken = createIssuer({ issuer, accessTtlSeconds, expiryJitter, clock, random });
  const ring = new KeyRing();
  let signing: Signing | undefined;

  const fleet = createFleet({
    store: control.fleet,
    self: { instance: random.token(9), host: hostname(), version: VERSION, issuer, audience: [...audience], fingerprint: fingerprintOf(config) },
    describe() {
      const report = signing?.report();
      return {
        ...describe(),
        keys: ring.own.map(({ publicJwk: jwk, file, signsFrom }) => ({ jwk, file, ...(signsFrom === undefined ? {} : { signsFrom }) })),
        verifies: [...ring.kids],
        signing: report?.state ?? 'broken',
        problems: [...(report?.problems ?? [])],
        ...(report?.activeKid !== undefined && report.canSign ? { signs: report.activeKid } : {}),
      };
    },
    fleetNowMs,
    nowMs: () => clock.now(),
    onBeat() {
      // A key that waited may do so no longer, and what Redis has lost is written again.
      void signing?.reload();
      onBeat();
    },
    log,
    audit,
    metrics,
  });
  await fleet.read();

  signing = await startSigning({
    config: config.keys,
    ring,
    longestLifeSeconds: accessTtlSeconds,
    stored: control.jwks,
    denyList: control.denyList,
    fleet: fleet.view,
    fleetNowMs,
    clockOffMs: () => fleet.clockOffMs,
    clockSkewSeconds,
    probe: createProbe(policy, issueAccessToken, clock),
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
      fleetPolicy: () => signing?.against,
      keys: ring,
      clock,
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

const { version: VERSION }: { version: string } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
