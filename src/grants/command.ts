import type { CookiePairs } from '../formats/cookies.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { IssuedToken } from '../tokens/access-token.js';

/** What somebody asks for who wants credentials, whichever way it came. */
export interface GrantCommand {
  readonly client: ResolvedClient;
  readonly beside: Beside;
  /**
   * Called before the last step: nobody waits any more where it throws, and what was made for nobody is taken back.
   * @throws {CrossfadeError} `temporarily_unavailable`.
   */
  readonly assertInTime: () => void;
}

/** What else came along: it must be of the same person (law 4). */
export interface Beside {
  readonly bearer?: string | undefined;
  /** Cookies of sessions; none where the page that sent them may not have them read. */
  readonly cookies: CookiePairs;
}

/** What tokens are asked for. */
export interface AskedTokens {
  /** The values of `audience` and `resource`, as they came. */
  readonly targets: readonly string[];
  /** The value of `scope`, as it came. */
  readonly scope: string | undefined;
}

/** Tokens, before anybody has decided how they travel. */
export interface GrantedTokens {
  readonly access: IssuedToken;
  /** Absent where the session cannot be asked again without its cookie. */
  readonly refreshToken?: string | undefined;
  readonly scope: readonly string[];
  /** When the family ends if it is not used from now on, in seconds since the epoch. */
  readonly unusedEnd: number;
}
