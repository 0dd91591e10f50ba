import type { Clock } from '../clock.js';
import { epochSeconds } from '../clock.js';
import type { Config } from '../config/config.js';
import type { KeptSession } from '../sessions/kept-session.js';
import type { LiveSession } from '../sessions/record.js';
import type { Grant } from './grant.js';

type Lives = Pick<Config['tokens'], 'refreshIdleSeconds' | 'refreshAbsoluteSeconds'>;

/** How long a family may live that is made from a session: never longer than the session itself would (law 2). */
export function familyLife(session: LiveSession, lives: Lives, clock: Clock): Pick<Grant, 'endsAt' | 'idleSeconds'> {
  return {
    endsAt: Math.min(session.endsAt, epochSeconds(clock) + lives.refreshAbsoluteSeconds),
    idleSeconds: familyIdle(session, lives),
  };
}

/** Whether nothing can be made of a session any more: what is made of it never outlives it. */
export function isAtItsEnd({ endsAt }: Pick<LiveSession, 'endsAt'>, clock: Clock): boolean {
  return endsAt <= epochSeconds(clock);
}

export function familyIdle({ idleSeconds }: Pick<LiveSession, 'idleSeconds'>, { refreshIdleSeconds }: Lives): number {
  return Math.min(refreshIdleSeconds, idleSeconds ?? refreshIdleSeconds);
}

/** What is kept of a session that tokens are made from. */
export function toKept({ identity, source, idleSeconds }: LiveSession, epoch: string | undefined): KeptSession {
  const { subject, tenant, authTimeMs } = identity;
  const { entry, key, text, expiresAtMs } = source;
  return { entry, key, text, subject, tenant, authTimeMs, expiresAtMs, idleMs: idleSeconds === undefined ? undefined : idleSeconds * 1000, epoch };
}
