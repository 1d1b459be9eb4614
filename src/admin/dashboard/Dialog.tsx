/** A modal dialog. Escape closes it and restores the focus. */
import type { ComponentChildren } from "preact"
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks"
import * as Api from "./api.js"

export const Dialog = (props: {
  readonly title: string
  readonly onClose: () => void
  readonly wide?: boolean
  readonly children: ComponentChildren
}) => {
  const { children, onClose, title, wide } = props
  const ref = useRef<HTMLDialogElement>(null)
  const id = useId()
  // Before the element is removed, and the focus with it.
  useLayoutEffect(() => {
    const before = document.activeElement
    const dialog = ref.current!
    dialog.showModal()
    return () => {
      dialog.close()
      if (before instanceof HTMLElement && before.isConnected) before.focus()
    }
  }, [])
  return (
    <dialog
      ref={ref}
      class={wide === true ? "wide" : ""}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault()
        onClose()
      }}
    >
      <header>
        <h2 id={id}>{title}</h2>
        <button type="button" class="quiet" onClick={onClose} aria-label="Close">
          ✕
        </button>
      </header>
      {children}
    </dialog>
  )
}

/** What an operator can do, once confirmed with a reason. */
export interface Deed {
  readonly title: string
  readonly explanation: string
  /** What the button says. */
  readonly confirm: string
  readonly dangerous?: boolean
  /** Answers what was done. */
  readonly run: (reason: string) => Promise<string>
}

const busyText = "Working…"

export const ConfirmDialog = (props: {
  readonly deed: Deed
  readonly onClose: () => void
  readonly onDone: (what: string) => void
  readonly onUnauthorized: () => void
}) => {
  const { deed, onClose, onDone, onUnauthorized } = props
  const [reason, setReason] = useState("")
  const [state, setState] = useState<{ busy: boolean; problem?: string }>({ busy: false })
  const run = async (): Promise<void> => {
    setState({ busy: true })
    try {
      onDone(await deed.run(reason.trim()))
    } catch (error) {
      setState({ busy: false, problem: Api.explain(error) })
      if (error instanceof Api.Refused && error.status === 401) onUnauthorized()
    }
  }
  return (
    <Dialog title={deed.title} onClose={onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault()
          if (!state.busy) void run()
        }}
      >
        <p>{deed.explanation}</p>
        <label>
          Reason <span class="dim">(kept in the audit log)</span>
          <input
            name="reason"
            required
            autofocus
            maxLength={500}
            pattern=".*\S.*"
            title="At least one word"
            autocomplete="off"
            value={reason}
            onInput={(event) => setReason(event.currentTarget.value)}
          />
        </label>
        {state.problem !== undefined && (
          <p class="problem" role="alert">
            Failed: {state.problem}
          </p>
        )}
        <footer>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class={deed.dangerous === true ? "danger" : "primary"} aria-disabled={state.busy}>
            {state.busy ? busyText : deed.confirm}
          </button>
        </footer>
      </form>
    </Dialog>
  )
}

export const TokenDialog = (props: {
  readonly why: string | undefined
  readonly onClose: (changed: boolean) => void
}) => {
  const { onClose, why } = props
  const [value, setValue] = useState("")
  const set = (token: string): void => {
    Api.token.set(token)
    onClose(true)
  }
  return (
    <Dialog title="Token" onClose={() => onClose(false)}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault()
          set(value.trim())
        }}
      >
        {why !== undefined && <p class="problem">{why}</p>}
        <p>The service requires a token. This page keeps it until you close the tab.</p>
        <label>
          Token
          <input
            name="token"
            type="password"
            required
            autofocus
            autocomplete="off"
            value={value}
            onInput={(event) => setValue(event.currentTarget.value)}
          />
        </label>
        <footer>
          {Api.token.get() !== "" && (
            <button type="button" onClick={() => set("")}>
              Forget token
            </button>
          )}
          <button type="submit" class="primary">
            Use token
          </button>
        </footer>
      </form>
    </Dialog>
  )
}
