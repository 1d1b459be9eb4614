/*! This file holds preact (MIT, Jason Miller), uPlot (MIT, Leon Sorokin) and eventsource-parser (MIT, Espen Hovlandsdal). */
import { render } from "preact"
import "uplot/dist/uPlot.min.css"
import { App } from "./App.js"
import "./styles.css"

render(<App />, document.getElementById("app")!)
