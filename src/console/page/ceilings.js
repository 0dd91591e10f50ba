import { readAffected, releaseCeiling, setCeiling } from './api.js';
import { byId, el, number } from './elements.js';
import { whomOf } from './sections.js';

/** @typedef {import('./api.js').Selector} Selector */

const dialog = /** @type {HTMLDialogElement} */ (byId('ceiling-dialog'));
const form = /** @type {HTMLFormElement} */ (byId('ceiling-form'));
const whom = /** @type {HTMLSelectElement} */ (byId('ceiling-whom'));
const stage = /** @type {HTMLSelectElement} */ (byId('ceiling-stage'));
const forHow = /** @type {HTMLSelectElement} */ (byId('ceiling-for'));
const why = /** @type {HTMLInputElement} */ (byId('ceiling-why'));
const go = /** @type {HTMLButtonElement} */ (byId('ceiling-go'));

/** @type {Selector[]} */
let choices = [];
/** @type {(reason: string) => Promise<{ missing: string[] }>} */
let act = async () => ({ missing: [] });
let afterwards = () => {};

/**
 * @param {{ clients: string[], cohorts: string[], stages: string[] }} names
 * @param {() => void} changed called after a ceiling was set or released
 */
export function prepareCeilings({ clients, cohorts, stages }, changed) {
  afterwards = changed;
  choices = [
    { on: 'all' },
    ...clients.map((name) => ({ on: 'client', name })),
    ...cohorts.filter((name) => !clients.includes(name)).map((name) => ({ on: 'cohort', name })),
  ];
  const options = choices.map((choice, at) => el('option', { value: String(at) }, whomOf(choice)));
  whom.replaceChildren(el('option', { value: '' }, 'choose …'), ...options);
  stage.replaceChildren(...stages.map((name) => el('option', { value: name }, name)));
}

/** @param {{ title: string, text: string, button: string, hasFields: boolean, reason?: string }} shown @param {typeof act} action */
function open({ title, text, button, hasFields, reason = '' }, action) {
  act = action;
  byId('ceiling-title').textContent = title;
  byId('ceiling-text').textContent = text;
  byId('ceiling-problem').textContent = '';
  byId('ceiling-affected').textContent = '';
  byId('ceiling-fields').hidden = !hasFields;
  whom.required = hasFields;
  go.textContent = button;
  go.className = 'go';
  why.value = reason;
  dialog.showModal();
  (hasFields ? whom : why).focus();
}

/** The brake for the night: nobody new moves, nobody who moved notices. */
export async function stopMoving() {
  const ceiling = { stage: 'session-only' };
  open(
    {
      title: 'Stop moving',
      text: 'Nobody new moves to tokens, on every instance, until this is released. Whoever has moved notices nothing.',
      button: 'Stop moving',
      hasFields: false,
    },
    (reason) => setCeiling({ on: 'all' }, { ...ceiling, why: reason }),
  );
}

function chosen() {
  const choice = whom.value === '' ? undefined : choices[Number(whom.value)];
  if (!choice) throw new Error('choose whom it is for');
  return choice;
}

export function openCeiling() {
  // Opens with the mildest choice, and for no one.
  whom.value = '';
  stage.value = 'session-only';
  forHow.value = '7200';
  open({ title: 'Set a ceiling', text: 'Whatever the flags say, nobody of these goes above it.', button: 'Set it', hasFields: true }, (reason) =>
    setCeiling(chosen(), {
      stage: stage.value,
      why: reason,
      ...(forHow.value === '' ? {} : { forSeconds: Number(forHow.value) }),
    }),
  );
  void tellAffected();
}

/** @param {{ selector: Selector, stage: string, by: string, why: string }} ceiling */
export function openRelease({ selector, stage: held, by, why: reason }) {
  open({ title: `Release ${whomOf(selector)}`, text: `Held at ${held} by the ${by}: ${reason}`, button: 'Release', hasFields: false }, (given) =>
    releaseCeiling(selector, given),
  );
}

async function tellAffected() {
  const told = byId('ceiling-affected');
  const choice = whom.value === '' ? undefined : choices[Number(whom.value)];
  if (!choice) {
    told.textContent = '';
    return;
  }
  try {
    const { subjects, requestsPerMinute } = await readAffected(choice, stage.value);
    told.textContent = `${number(subjects)} people (seen in ten minutes) and ${number(requestsPerMinute)} requests a minute are above it now.`;
  } catch (error) {
    told.textContent = error instanceof Error ? error.message : '';
  }
}

whom.addEventListener('change', () => void tellAffected());
stage.addEventListener('change', () => void tellAffected());
byId('ceiling-cancel').addEventListener('click', () => dialog.close());
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  go.disabled = true;
  try {
    const { missing } = await act(why.value.trim());
    afterwards();
    if (missing.length === 0) return dialog.close();
    byId('ceiling-problem').textContent = `Done, but ${missing.join(', ')} did not confirm it within three seconds. See the fleet below.`;
  } catch (error) {
    byId('ceiling-problem').textContent = error instanceof Error ? error.message : 'that did not work';
  } finally {
    go.disabled = false;
  }
});
