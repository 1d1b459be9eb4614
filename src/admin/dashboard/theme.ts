/** Light or dark: the system's choice unless the user chose. */
import { useEffect, useState } from "preact/hooks"

export const themes = ["system", "light", "dark"] as const

export type Theme = (typeof themes)[number]

const stored = "controlpublish.theme"

const chosen = (): Theme => themes.find((theme) => theme === localStorage.getItem(stored)) ?? "system"

const systemIsDark = matchMedia("(prefers-color-scheme: dark)")

/** The chosen theme, the theme in effect, and the setter. */
export const useTheme = (): {
  readonly theme: Theme
  readonly shown: string
  readonly choose: (theme: Theme) => void
} => {
  const [theme, setTheme] = useState(chosen)
  const [dark, setDark] = useState(systemIsDark.matches)
  useEffect(() => {
    const changed = (): void => setDark(systemIsDark.matches)
    systemIsDark.addEventListener("change", changed)
    return () => systemIsDark.removeEventListener("change", changed)
  }, [])
  const shown = theme === "system" ? (dark ? "dark" : "light") : theme
  document.documentElement.dataset.theme = shown
  return {
    theme,
    shown,
    choose: (theme) => {
      localStorage.setItem(stored, theme)
      setTheme(theme)
    }
  }
}
