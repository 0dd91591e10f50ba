import { readAffected, releaseClamp, setClamp } from './api.js';
import { byId, el, number } from './elements.js';
import { whomOf } from './sections.js';
import { safeStage } from './stages.js';

/** @typedef {import('./api.js').Selector} Selector */

const dialog = /** @type {HTMLDialogElement} */ (byId('clamp-dialog'));
const form = /** @type {HTMLFormElement} */ (byId('clamp-form'));
const whom = /** @type {HTMLSelectElement} */ (byId('clamp-whom'));
const stage = /** @type {HTMLSelectElement} */ (byId('clamp-stage'));
const forHow = /** @type {HTMLSelectElement} */ (byId('clamp-for'));
const why = /** @type {HTMLInputElement} */ (byId('clamp-why'));
const go = /** @type {HTMLButtonElement} */ (byId('clamp-go'));

/** @type {Selector[]} */
let choices = [];
/** @type {(reason: string) => Promise<{ missing: string[] }>} */
let act = async () => ({ missing: [] });
let afterwards = () => {};

/**
 * @param {{ clients: string[], cohorts: string[], stages: import('./stages.js').StageFacts[] }} names
 * @param {() => void} changed called after a clamp was set or released
 */
export function prepareClamps({ clients, cohorts, stages }, changed) {
  afterwards = changed;
  choices = [
    { on: 'all' },
    ...clients.map((name) => ({ on: 'client', name })),
    ...cohorts.filter((name) => !clients.includes(name)).map((name) => ({ on: 'cohort', name })),
  ];
  const options = choices.map((choice, at) => el('option', { value: String(at) }, whomOf(choice)));
  whom.replaceChildren(el('option', { value: '' }, 'choose …'), ...options);
  stage.replaceChildren(...stages.map(({ name }) => el('option', { value: name }, name)));
}

/** @param {{ title: string, text: string, button: string, hasFields: boolean, reason?: string }} shown @param {typeof act} action */
function open({ title, text, button, hasFields, reason = '' }, action) {
  act = action;
  byId('clamp-title').textContent = title;
  byId('clamp-text').textContent = text;
  byId('clamp-problem').textContent = '';
  byId('clamp-affected').textContent = '';
  byId('clamp-fields').hidden = !hasFields;
  whom.required = hasFields;
  go.textContent = button;
  go.className = 'go';
  why.value = reason;
  dialog.showModal();
  (hasFields ? whom : why).focus();
}

/** The brake for the night: nobody new moves, nobody who moved notices. */
export async function stopMoving() {
  const clamp = { stage: safeStage() };
  open(
    {
      title: 'Stop moving',
      text: 'Nobody new moves to tokens, on every instance, until this is released. Whoever has moved notices nothing.',
      button: 'Stop moving',
      hasFields: false,
    },
    (reason) => setClamp({ on: 'all' }, { ...clamp, why: reason }),
  );
}

function chosen() {
  const choice = whom.value === '' ? undefined : choices[Number(whom.value)];
  if (!choice) throw new Error('choose whom it is for');
  return choice;
}

export function openClamp() {
  // Opens with the mildest choice, and for no one.
  whom.value = '';
  stage.value = safeStage();
  forHow.value = '7200';
  open({ title: 'Set a clamp', text: 'Whatever the flags say, nobody of these goes above it.', button: 'Set it', hasFields: true }, (reason) =>
    setClamp(chosen(), {
      stage: stage.value,
      why: reason,
      ...(forHow.value === '' ? {} : { forSeconds: Number(forHow.value) }),
    }),
  );
  void tellAffected();
}

/** @param {import('../status.js').ClampStatus} clamp */
export function openRelease({ id, selector, stage: held, by, why: reason }) {
  open({ title: `Release ${whomOf(selector)}`, text: `Held at ${held} by the ${by}: ${reason}`, button: 'Release', hasFields: false }, (given) =>
    releaseClamp(selector.on === 'unknown' ? { id } : selector, given),
  );
}

async function tellAffected() {
  const told = byId('clamp-affected');
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
byId('clamp-cancel').addEventListener('click', () => dialog.close());
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  go.disabled = true;
  try {
    const { missing } = await act(why.value.trim());
    afterwards();
    if (missing.length === 0) return dialog.close();
    byId('clamp-problem').textContent = `Done, but ${missing.join(', ')} did not confirm it within three seconds. See the fleet below.`;
  } catch (error) {
    byId('clamp-problem').textContent = error instanceof Error ? error.message : 'that did not work';
  } finally {
    go.disabled = false;
  }
});
