import type { PersonEnd } from '../endings/event.js';
import type { Persons } from '../endings/person.js';
import type { CrossfadeError } from '../errors.js';
import type { Families, OpenedFamily } from '../tokens/family.js';
import type { Grant } from '../tokens/grant.js';

/** A family that is to be made, and what is made of it. */
export interface NewFamily<T> {
  readonly sid: string;
  readonly grant: Grant;
  /** The session, sealed to be kept; empty: there is none. */
  readonly sealedSession: string;
  /** The answer where an end of the person ends this login too. */
  refusedBy(ended: PersonEnd): CrossfadeError | undefined;
  /** The answer where the person was ended while the family was made. */
  refusedSince(ended: PersonEnd | undefined): CrossfadeError | undefined;
  /** From here on a logout in the app is heard. */
  watch?(): Promise<void>;
  /** Signs, and looks again whether what it was made from is still there. */
  finish(opened: OpenedFamily): Promise<T>;
}

export interface NewFamilyOptions {
  readonly persons: Pick<Persons, 'note'>;
  readonly families: Pick<Families, 'open' | 'end'>;
}

/** The one order of steps: note → open → look again → finish, else take back. Throws what a step throws. */
export async function withNewFamily<T>({ persons, families }: NewFamilyOptions, wanted: NewFamily<T>): Promise<T> {
  const { sid, grant } = wanted;
  const note = async () => await persons.note(grant.identity.subject, sid, grant.endsAt * 1000);
  const before = await note();
  const refused = before && wanted.refusedBy(before);
  if (refused) throw refused;
  const opened = await families.open(sid, grant, wanted.sealedSession);
  try {
    await wanted.watch?.();
    // Whoever ended the person in between found the note, but no family yet.
    const after = await note();
    const since = after?.endedAt === before?.endedAt ? undefined : wanted.refusedSince(after);
    if (since) throw since;
    return await wanted.finish(opened);
  } catch (error) {
    // Nobody has its token.
    await families.end(sid, opened.family, 'taken-back').catch(() => undefined);
    throw error;
  }
}
