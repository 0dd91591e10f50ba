import type { Agreed } from './agreement.js';
import type { SigningState } from './health.js';
import type { KeyRing } from './key-ring.js';
import type { LoadedKey, RejectedFile } from './load.js';

/** What signing has come to: asked at each signature, and announced to the others. `signing.ts` alone writes it. */
export class SigningStand {
  readonly ring: KeyRing;
  state: SigningState = 'broken';
  rejected: readonly RejectedFile[] = [];
  /** Why it is not healthy, a sentence each. */
  problems: readonly string[] = [];
  /** Names of the files that keys are in at the moment, by kid. */
  files: ReadonlyMap<string, string> = new Map();
  agreed: Agreed = { active: undefined, held: [], against: undefined, unaccepted: new Map(), policies: [] };

  constructor(ring: KeyRing) {
    this.ring = ring;
  }

  /** The key to sign with; undefined while signing is broken or not this instance's business. */
  get signingKey(): LoadedKey | undefined {
    return this.state === 'broken' ? undefined : this.ring.active;
  }
}
