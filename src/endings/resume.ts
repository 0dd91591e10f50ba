import { unavailable } from '../errors.js';
import { endLogin, isSameLogin, type Login, loginOf } from '../login.js';
import type { KeptSession } from '../sessions/kept-session.js';
import type { SessionLedger } from '../sessions/ledger.js';
import type { SessionReader } from '../sessions/reader.js';
import type { LiveSession } from '../sessions/record.js';
import type { Logout } from './logout.js';
import { CONSEQUENCES, isMissing, type LogoutJudge } from './record-fate.js';
import type { StoreEpoch, StoreEpochs } from './store-epoch.js';

/** What a token's session has become. */
export type Resumed =
  | { readonly kind: 'live'; readonly session: LiveSession; readonly epoch: StoreEpoch | undefined }
  /** Nobody logged out, and what was last seen of the record stands in: it is gone; or `isThere`, and cannot be read at the moment. */
  | { readonly kind: 'dormant'; readonly kept: KeptSession; readonly isThere?: true }
  /** Its person has logged out, or another has taken the place. */
  | { readonly kind: 'ended' };

export interface ResumeOptions {
  readonly sessions: Pick<SessionReader, 'readKnown'>;
  readonly ledger: SessionLedger;
  readonly logout: Logout;
  readonly judge: LogoutJudge;
  /** Undefined for an entry that the config no longer has. */
  readonly epochsOf: (entry: string) => StoreEpochs | undefined;
  readonly vanished: (sid: string) => void;
}

/**
 * Reads the session that tokens were made from anew, for `person`, who had it when they were made. A logout that the
 * legacy app did alone is found here at the latest, and ends everything.
 * @throws {CrossfadeError} `temporarily_unavailable`.
 */
export type ResumeSession = (sid: string, person: Login) => Promise<Resumed>;

export function createResume({ sessions, ledger, logout, judge, epochsOf, vanished }: ResumeOptions): ResumeSession {
  return async function resumeSession(sid, login) {
    const person = loginOf(login);
    const [kept, endedAt] = await Promise.all([ledger.kept(sid), ledger.now(sid)]);
    if (!kept) return { kind: 'ended' };
    const epochs = epochsOf(kept.entry);
    const isSame = isSameLogin(person, kept);
    // Those sessions are retired: there is no record to ask, and no logout that could be missed.
    if (!epochs && isSame) return { kind: 'dormant', kept };
    const epoch = await epochs?.recent();
    const reading = await sessions.readKnown(kept.entry, kept.key, { strict: true });
    if (isMissing(reading)) judge.missing(sid);
    const last = { ...person, expiresAtMs: kept.expiresAtMs, epoch: kept.epoch };
    // What is kept may be another person's by now, and no record there to say so.
    const fate = reading.kind === 'rejected' && !isSame ? 'other-person' : await judge.judge(reading, last, async () => await epochs?.now());
    const consequence = CONSEQUENCES[fate];
    switch (consequence.kind) {
      case 'live':
        return reading.kind === 'session' ? { kind: 'live', session: reading.session, epoch } : { kind: 'ended' };
      case 'ended':
        await logout.note(sid, consequence.reason, endLogin(person, endedAt));
        return { kind: 'ended' };
      case 'unknown':
        throw unavailable('redis');
      case 'dormant':
        if (consequence.isLost) vanished(sid);
        return { kind: 'dormant', kept, ...(consequence.record === 'there' ? { isThere: true } : {}) };
    }
  };
}
