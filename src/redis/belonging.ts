/** Whether this instance belongs to the fleet on its Redis, as far as is known: it may have another secret. */
export interface Belonging {
  /** Whether what no secret here opens may be of this fleet all the same. */
  isStranger(): boolean;
  /** Whether most instances here have another secret, and Redis holds what they wrote: none of them would open what this one writes. */
  isUnheard(): boolean;
  /** Whether it was lately read who else is there. */
  isInTouch(): boolean;
}
