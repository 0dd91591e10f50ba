import { createLiveFiles, type LiveFiles } from '../config/live-files.js';
import type { Audit } from '../telemetry/audit.js';
import type { Log } from '../telemetry/log.js';

/** Follows files with secrets, and tells log and audit what becomes of them. */
export function followFiles({ log, audit }: { readonly log: Log; readonly audit: Audit }): LiveFiles {
  return createLiveFiles({
    changed: (setting) => audit('secret.changed', { setting }),
    rejected(setting, reason) {
      audit('secret.rejected', { setting, reason });
      log.error({ setting, reason }, 'a file with secrets has changed and cannot be used: what it held before stays in force');
    },
  });
}
