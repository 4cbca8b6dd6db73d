/// Lists the checks of a module. The list makes `run`, which carries one out by its name, and a macro that makes a test of
/// each: who calls it has them all, and a check that isn't listed is dead code.
macro_rules! checks {
    ($dollar:tt $tests:ident($subject:ty): $($name:ident),+ $(,)?) => {
        /// The names of all checks.
        pub const NAMES: &[&str] = &[$(stringify!($name)),+];

        /// Carries one check out; it panics when what it says doesn't hold.
        pub async fn run(name: &str, subject: $subject) {
            match name {
                $(stringify!($name) => Box::pin($name(subject)).await,)+
                _ => panic!("there is no check {name}"),
            }
        }

        /// A test of each check, by its name. What is given is called with the name, and runs the check on a subject of its own.
        #[macro_export]
        macro_rules! $tests {
            ($dollar on:path) => {
                $(
                    #[tokio::test]
                    async fn $name() {
                        $dollar on(stringify!($name)).await;
                    }
                )+
            };
        }
    };
}

pub(crate) use checks;
