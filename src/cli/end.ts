import { print } from './print.js';
import { changeInRoom } from './room.js';

export interface EndOptions {
  readonly config: string;
  readonly subject: string;
  readonly why: string;
  readonly exceptSid?: string;
  readonly json?: boolean;
}

/** `crossfade end`: ends everything of a person. */
export async function end({ config: path, subject, why, exceptSid, json = false }: EndOptions): Promise<void> {
  await changeInRoom(path, async ({ lifecycle }) => {
    const sessions = await lifecycle.persons.end(subject, { why, ...(exceptSid === undefined ? {} : { exceptSid }) });
    if (json) print.json({ sessions });
    else {
      print.line(
        `Ended: ${sessions === 1 ? '1 session' : `${sessions} sessions`} that tokens were made from, all tokens, and every login before this moment.`,
      );
      print.line("Sessions that the bridge never saw and whose record holds no time of the login are the app's own to end.");
    }
  });
}
