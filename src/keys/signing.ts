import type { Config } from '../config/config.js';
import type { SignedValue } from '../redis/signed-value.js';
import type { Audit } from '../telemetry/audit.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type DirectoryWatch, watchDirectory } from '../watch.js';
import { createSigningHealth, SIGNING_STATES, type SigningState } from './health.js';
import type { StoredJwks } from './jwks.js';
import { KeyRing } from './key-ring.js';
import { type LoadedKey, loadKeyDirectory, type RejectedFile } from './load.js';
import { chooseActive, mergeKeys, uniteKeys } from './rotation.js';
import { type Probe, selfTest } from './self-test.js';

export interface SigningOptions {
  readonly config: Config['keys'];
  /** How long a token may live at most, in seconds. */
  readonly longestLifeSeconds: number;
  /** The fleet's public keys in Redis. */
  readonly stored: SignedValue<StoredJwks>;
  readonly probe: Probe;
  /** The time by which keys are first seen, published and kept: that of Redis, in ms. Rejects while Redis is away. */
  readonly fleetNowMs: () => Promise<number>;
  readonly log: Log;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

export interface SigningReport {
  readonly state: SigningState;
  readonly canSign: boolean;
  readonly activeKid?: string;
  readonly rejected: readonly RejectedFile[];
  /** Why it is not healthy, a sentence each. */
  readonly problems: readonly string[];
}

/** The keys and their health: loads, tests, watches, and tells Redis what verifies. */
export interface Signing {
  readonly ring: KeyRing;
  /** The key to sign with; undefined while signing is broken or not this instance's business. */
  signingKey(): LoadedKey | undefined;
  report(): SigningReport;
  /** Reads the directory and tests every key anew. Never rejects. */
  reload(): Promise<void>;
  /** Ends the watch; resolves when a pass under way has ended. */
  close(): Promise<void>;
}

/** How soon a better result is confirmed, and how soon Redis is asked again while it was never reached. */
const SOON_MS = 300;

/** Loads the keys and tests them before it resolves. Broken keys do not stop the start: sessions are served all the same. */
export async function startSigning(options: SigningOptions): Promise<Signing> {
  const { config, stored, probe, log, audit, metrics } = options;
  const ring = new KeyRing();
  const health = createSigningHealth((from, to) => {
    for (const state of SIGNING_STATES) metrics.signingHealth.set({ state }, state === to ? 1 : 0);
    audit('signing.changed', { from: from ?? 'starting', to });
  });
  let rejected: readonly RejectedFile[] = [];
  let problems: readonly string[] = [];
  let running: Promise<void> | undefined;
  let again = false;
  let redisAway = false;
  let soon: NodeJS.Timeout | undefined;
  let closed = false;

  async function readFiles(): Promise<readonly string[]> {
    const found = await loadKeyDirectory(config);
    const refused = [...found.rejected];
    for (const key of found.keys) {
      if (ring.own.some(({ kid }) => kid === key.kid)) continue;
      const reason = await selfTest(key, ring.jwksWith(key), probe);
      if (reason !== undefined) refused.push({ file: key.file, reason });
      else {
        ring.add(key);
        audit('key.accepted', { kid: key.kid, file: key.file });
      }
    }
    for (const { file, reason } of refused) {
      if (!rejected.some((known) => known.file === file && known.reason === reason)) {
        audit('key.rejected', { file, reason });
      }
    }
    rejected = refused;
    metrics.rejectedKeyFiles.set(refused.length);
    return found.keys.map(({ kid }) => kid);
  }

  /** The keys of this instance that sign what the JWKS as it is served verifies. */
  async function testRing(): Promise<LoadedKey[]> {
    const sound: LoadedKey[] = [];
    for (const key of ring.own) {
      const reason = await selfTest(key, ring.jwks?.body ?? '', probe);
      if (reason === undefined) sound.push(key);
      else log.error({ kid: key.kid, reason }, 'a key failed its self-test');
    }
    return sound;
  }

  /** Tells the fleet what this instance has, hears what the fleet has, and claims the key that signs. */
  async function agree(sound: readonly LoadedKey[]): Promise<string | undefined> {
    const keepMs = 2 * options.longestLifeSeconds * 1000;
    const own = ring.own.map(({ publicJwk }) => publicJwk);
    let active: string | undefined;
    try {
      // The fleet's own clock: an instance whose clock is off must not make a key older or younger than it is.
      const nowMs = await options.fleetNowMs();
      const agreed = await stored.update((current) => {
        const known = current?.keys ?? [];
        const merged = mergeKeys({ stored: uniteKeys(ring.stored, known), own, nowMs, keepMs });
        active =
          config.use === 'verify' ? undefined : chooseActive({ candidates: sound, stored: merged, nowMs, publishMs: config.publishSeconds * 1000 });
        const keys = merged.map((key) => (key.jwk.kid === active ? { ...key, signedAt: key.signedAt ?? nowMs } : key));
        return isNews(known, keys, keepMs) ? { keys } : undefined;
      });
      ring.setStored(agreed?.keys ?? []);
      redisAway = false;
      return active;
    } catch (error) {
      if (!redisAway) log.warn({ err: error }, "the fleet's keys cannot be read from Redis; going on with those in memory");
      redisAway = true;
      const current = ring.active?.kid;
      return sound.some(({ kid }) => kid === current) ? current : undefined;
    }
  }

  async function pass(): Promise<void> {
    const filed = await readFiles();
    const sound = await testRing();
    const before = ring.active?.kid;
    const active = await agree(sound);
    ring.activate(active);
    if (active !== undefined && active !== before) audit('key.activated', { kid: active });

    problems = describeProblems(active, filed, sound);
    health.observe(config.use === 'verify' ? stateOfVerifier() : active === undefined ? 'broken' : problems.length > 0 ? 'degraded' : 'healthy');
    for (const phase of ['next', 'active', 'retiring'] as const) {
      metrics.ringKeys.set({ phase }, ring.kids.filter((kid) => ring.phaseOf(kid) === phase).length);
    }
  }

  function stateOfVerifier(): SigningState {
    return ring.kids.length > 0 ? 'healthy' : 'broken';
  }

  function describeProblems(active: string | undefined, filed: readonly string[], sound: readonly LoadedKey[]): string[] {
    const found = rejected.map(({ file, reason }) => `${file} ${reason}`);
    for (const key of ring.own) {
      if (key.kid === active && !filed.includes(key.kid))
        found.push(`${key.file}, which signs, is no longer in the directory: a restart would do without it`);
      if (!sound.includes(key)) found.push(`${key.file} fails its self-test`);
    }
    if (config.use === 'sign' && active === undefined) found.push(whyNoneSigns(sound));
    return found;
  }

  function whyNoneSigns(sound: readonly LoadedKey[]): string {
    if (sound.length === 0) return 'no usable signing key: crossfade init makes one';
    if (!ring.fleetKeysRead) return 'no key may sign before the keys of the fleet were read from Redis';
    return `no key may sign yet: the time in its name has not come, or it has not been published for keys.publishSeconds (${config.publishSeconds})`;
  }

  function reload(): Promise<void> {
    if (running) {
      again = true;
      return running;
    }
    running = (async () => {
      do {
        again = false;
        await pass();
      } while (again && !closed);
    })()
      .catch((error: unknown) => log.error({ err: error }, 'the keys could not be tested'))
      .finally(() => {
        running = undefined;
        clearTimeout(soon);
        if (!closed && (health.improving || !ring.fleetKeysRead)) soon = setTimeout(() => void reload(), SOON_MS);
        soon?.unref();
      });
    return running;
  }

  const watch: DirectoryWatch = watchDirectory(config.directory, () => void reload());
  await reload();
  const interval = setInterval(() => void reload(), config.selfTestSeconds * 1000);
  interval.unref();

  return {
    ring,
    signingKey: () => (health.state === 'broken' ? undefined : ring.active),
    report() {
      const canSign = health.state !== 'broken' && ring.active !== undefined;
      return { state: health.state, canSign, rejected, problems, ...(ring.active ? { activeKid: ring.active.kid } : {}) };
    },
    reload,
    async close() {
      closed = true;
      watch.close();
      clearInterval(interval);
      clearTimeout(soon);
      await running;
    },
  };
}

/** Whether Redis has to be told: other keys, a key that signs for the first time, or a sign of life that has grown old. */
function isNews(known: StoredJwks['keys'], keys: StoredJwks['keys'], keepMs: number): boolean {
  if (keys.length !== known.length) return true;
  return keys.some((key) => {
    const before = known.find(({ jwk }) => jwk.kid === key.jwk.kid);
    return !before || before.signedAt !== key.signedAt || key.lastSeenAt - before.lastSeenAt > keepMs / 10;
  });
}
