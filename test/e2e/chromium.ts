import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BrowserContext, chromium } from 'playwright-core';
import { onPath } from '../../scripts/lib/programs.js';

/** A real browser with a profile of its own. */
export interface Chromium {
  readonly context: BrowserContext;
  close(): Promise<void>;
}

/** It stays on this machine: whatever it would fetch for itself is switched off. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Debian's Chromium, without a window. */
export async function startChromium(options: { readonly width?: number; readonly height?: number; readonly dark?: boolean } = {}): Promise<Chromium> {
  const executablePath = onPath('chromium') ?? onPath('google-chrome');
  if (!executablePath) throw new Error('chromium is needed: install it with the package manager of this system');
  const profile = mkdtempSync(join(tmpdir(), 'crossfade-chromium-'));
  const { width = 1280, height = 900, dark = false } = options;
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    args: FLAGS,
    viewport: { width, height },
    colorScheme: dark ? 'dark' : 'light',
  });
  return {
    context,
    async close() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
