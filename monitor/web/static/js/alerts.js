import { onAlert, onEvidence, reset } from "./alertlist.js";
import { listen } from "./live.js";

listen({ alert: onAlert, evidence: onEvidence, reset });
