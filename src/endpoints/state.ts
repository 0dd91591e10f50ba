import type { BearerRejection, Principal, SessionRejection } from '../principal.js';

/** Why a request that showed a credential is anonymous all the same (law 3). */
export type Rejection =
  | { readonly credential: 'session'; readonly reason: SessionRejection }
  | { readonly credential: 'bearer'; readonly reason: BearerRejection };

/** What `authenticate()` leaves for the app's handlers. */
export interface CrossfadeState {
  /** Who the request is; absent for an anonymous request. */
  principal?: Principal;
  /** Why the credential that came is none. */
  rejection?: Rejection;
}
