import { z } from 'zod';
import { parseJson } from '../redis/replies.js';

const time = z.int().nonnegative();

/** What instances tell each other. Times are Redis' own, in ms, unless a name says otherwise. */
const eventSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('session.ended'),
    sid: z.string(),
    subject: z.string(),
    tenant: z.string().optional(),
    /** Login of the session that ended, in ms by the legacy app's clock. */
    authTimeMs: time.optional(),
    endedAt: time,
    /** Its record could not be found: an instance that knows where it is deletes it. */
    unfinished: z.boolean().optional(),
  }),
  z.object({ type: z.literal('family.ended'), sid: z.string(), family: z.string(), endedAt: time }),
  z.object({
    type: z.literal('subject.ended'),
    subject: z.string(),
    endedAt: time,
    /** Compared with the time of a login, which is the legacy app's. */
    notBefore: time,
    exceptSid: z.string().optional(),
  }),
  // A signed value has changed: everybody reads it again.
  z.object({ type: z.literal('news'), about: z.enum(['keys', 'clamps']), at: time }),
]);

export type BridgeEvent = z.output<typeof eventSchema>;
export type News = Extract<BridgeEvent, { type: 'news' }>['about'];
/** Something has ended: what is revoked by it must hold on every instance. */
export type EndEvent = Exclude<BridgeEvent, { type: 'news' }>;
export type PersonEnd = Extract<EndEvent, { type: 'subject.ended' }>;

/** What the MAC of an event is bound to. */
export const EVENT_CONTEXT = 'event';

/** The event in a text whose MAC is good. `later`: of a kind that this release does not know. */
export function readEvent(text: string): BridgeEvent | 'unknown-shape' | 'later' {
  const found = parseJson(text);
  const event = eventSchema.safeParse(found);
  // A later release publishes a new kind of end in the known kinds as well.
  return event.success ? event.data : isOfKnownType(found) ? 'unknown-shape' : 'later';
}

function isOfKnownType(found: unknown): boolean {
  const { type, about } = z.looseObject({ type: z.unknown(), about: z.unknown() }).safeParse(found).data ?? {};
  return eventSchema.options.some(({ shape }) => shape.type.value === type) && (type !== 'news' || about === 'keys' || about === 'clamps');
}

/** The same for an event that was written again. */
export function nameOfEnd(event: EndEvent): string {
  const of =
    event.type === 'subject.ended'
      ? `${event.subject} ${event.exceptSid}`
      : event.type === 'family.ended'
        ? event.family
        : `${event.sid} ${event.subject}`;
  return `${event.type} ${event.endedAt} ${of}`;
}
