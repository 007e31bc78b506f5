//! The parts of a simulated mesh that can be broken on purpose, and which checker has to notice. Never breaks anything itself.

use std::str::FromStr;

/// Declares the mutants once: what is broken, its word on a command line, and the word that the blame of its checker begins with.
macro_rules! mutants {
    ($($(#[$doc:meta])+ $name:ident = $word:literal, $proves:literal;)+) => {
        /// A deliberately broken part of the mesh. The simulation must find each of them, by the checker that it is there for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant { $($(#[$doc])+ $name,)+ }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word for it on a command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// What the blame of the checker begins with that it proves able to fail.
            pub fn proves(self) -> &'static str {
                match self { $(Self::$name => $proves,)+ }
            }
        }
    };
}

mutants! {
    /// A batch is acked when it has been grouped, before the store has confirmed it.
    AckBeforeConfirm = "ack-before-confirm", "I2:";
    /// A resuming probe is told that everything up to the highest stored number is stored.
    ResumeFromMax = "resume-from-max", "I2:";
    /// An uncertain insert counts as stored.
    UncertainIsStored = "uncertain-is-stored", "I2:";
    /// A gap is acked before it is on record.
    GapAckedEarly = "gap-acked-early", "I2:";
    /// An uncertain insert counts as failed, and its batch is refused.
    UncertainIsFailed = "uncertain-is-failed", "I1:";
    /// A dead life of a probe is closed without writing down what it took with it.
    BootsClosedBlindly = "boots-closed-blindly", "I1:";
    /// What a dead life of a probe took with it is counted without asking what is stored.
    GapOverStored = "gap-over-stored", "I1:";
    /// After a lost stream a probe gives what has no ack new numbers.
    ResendAsNew = "resend-as-new", "I3:";
    /// What is inserted once more is not what was inserted first.
    OtherPayload = "other-payload", "I4:";
    /// Groups of two days are inserted as one.
    PartitionsMixed = "partitions-mixed", "I5:";
    /// Hours and days are not made anew when a minute has changed.
    HoursForgotten = "hours-forgotten", "I6:";
    /// Inserts begin without asking whether there is lease time left.
    GateIgnored = "gate-ignored", "I7:";
    /// Rows go under the name of another probe of the same collector.
    IdentityMixedUp = "identity-mixed-up", "I8:";
    /// Rows go to the tenant of another check.
    TenantMixedUp = "tenant-mixed-up", "I9:";
    /// A probe keeps what it has an ack for.
    AckUnheard = "ack-unheard", "I10:";
    /// While it has a backlog, a probe gives its last sample again and again.
    ResendsEagerly = "resends-eagerly", "I11:";
    /// A report of passed-over slots counts one too many.
    PassedMiscounted = "passed-miscounted", "I12:";
    /// Slots that had come are not reported when an assignment takes their check away.
    PassedUnreported = "passed-unreported", "I12:";
    /// Rows are inserted without marking their minute for the rollup.
    NoMark = "no-mark", "D7:";
    /// A mark is cleared whatever was marked since it was read.
    MarkClearedBlindly = "mark-cleared-blindly", "D7:";
    /// A lease holder goes on although its lease has run out.
    LeaseForEver = "lease-for-ever", "lease:";
    /// A planner gives the next assignment of a probe the number of the present one.
    GenerationReused = "generation-reused", "assignment:";
    /// A probe measures on, however long it has been alone.
    MeasuresForsaken = "measures-forsaken", "forsaken:";
    /// A probe that rested does not measure again when a collector is back.
    RestsForEver = "rests-for-ever", "forsaken:";
    /// A probe that rests says nothing of the slots that pass.
    RestsSilently = "rests-silently", "slots:";
    /// A batch whose insert had no answer is neither inserted again nor given up.
    UncertainIsForgotten = "uncertain-is-forgotten", "liveness:";
    /// What a dead life of a probe took with it is never written down.
    BootsNotClosed = "boots-not-closed", "liveness:";
    /// Only lives that were on record before the present one count as former lives: records may come in another order.
    BootsByRecord = "boots-by-record", "liveness:";
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.iter().map(|mutant| mutant.name()).collect::<Vec<_>>().join(", ");
        Self::ALL
            .iter()
            .copied()
            .find(|mutant| mutant.name() == name)
            .ok_or_else(|| format!("`{name}` is not a mutant; use one of {}", names()))
    }
}
