import { useEffect, useState } from "preact/hooks"

const query = matchMedia("(max-width: 680px)")

/** Whether the window is as narrow as a phone's, as in styles.css. */
export const useNarrow = (): boolean => {
  const [narrow, setNarrow] = useState(query.matches)
  useEffect(() => {
    const changed = (): void => setNarrow(query.matches)
    query.addEventListener("change", changed)
    return () => query.removeEventListener("change", changed)
  }, [])
  return narrow
}
