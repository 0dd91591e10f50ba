import { expect, it } from 'vitest';
import { watchLately } from '../../src/telemetry/lately.js';
import { createMetrics } from '../../src/telemetry/metrics.js';

it('counts exchanges and refreshes among the requests, also where nothing else came', async () => {
  const metrics = createMetrics();
  const watch = watchLately(metrics, () => 0);
  await watch.look();
  expect(watch.now).toBeUndefined();
  for (const grant of ['exchange', 'refresh', 'refresh']) metrics.grantSeconds.observe({ grant }, 0.004);
  await watch.look();
  expect(watch.now).toMatchObject({ requests: 3, unavailable: 0, faults: 0, p50Ms: 5 });
  metrics.requests.count('session', 'authenticated', 'web');
  await watch.look();
  expect(watch.now).toMatchObject({ requests: 4 });
});
