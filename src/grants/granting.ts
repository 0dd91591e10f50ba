import type { Clock } from '../clock.js';
import type { Config } from '../config/config.js';
import type { RecordWatch } from '../endings/record-watch.js';
import type { Progress } from '../rollout/progress.js';
import type { Rollout } from '../rollout/rollout.js';
import type { SessionLedger } from '../sessions/ledger.js';
import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Families } from '../tokens/family.js';
import type { Limits } from './limits.js';
import type { OwnFaults } from './own-faults.js';
import type { SignAccessToken } from './sign.js';
import type { OtherPrincipals } from './two-persons.js';

/** What everything works with that gives out tokens. */
export interface Granting {
  readonly lives: Config['tokens'];
  readonly families: Families;
  readonly sign: SignAccessToken;
  readonly canSign: () => boolean;
  readonly progress: Pick<Progress, 'count'>;
  readonly clock: Clock;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/** What those work with beside that come from a session. */
export interface SessionGranting extends Granting {
  readonly ledger: Pick<SessionLedger, 'kept' | 'now' | 'seal'>;
  readonly watch: RecordWatch;
  readonly others: OtherPrincipals;
  readonly rollout: Rollout;
  readonly limits: Limits;
  readonly ownFaults: Pick<OwnFaults, 'mapped' | 'lost'>;
}
